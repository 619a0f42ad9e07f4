//! The filter of ListOrders: conditions `field=value` joined by `AND`, values in double quotes or bare.

/// Conditions; what is not said holds for everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Filter {
    /// `state=ORDER_STATE_...`, as the contract names it.
    pub(crate) state: Option<String>,
    /// `customer="users/..."`.
    pub(crate) customer: Option<String>,
    /// `needs_attention=true`.
    pub(crate) needs_attention: Option<bool>,
    /// `external_reference="..."`.
    pub(crate) external_reference: Option<String>,
}

/// Reads a filter, or says what is wrong with it.
pub(crate) fn parse(text: &str) -> Result<Filter, String> {
    let mut filter = Filter::default();
    if text.trim().is_empty() {
        return Ok(filter);
    }
    for condition in text.split(" AND ") {
        let (field, value) = condition.split_once('=').ok_or_else(|| format!("{condition:?} is no condition"))?;
        let (field, value) = (field.trim(), value.trim());
        let value = value.strip_prefix('"').and_then(|inner| inner.strip_suffix('"')).unwrap_or(value);
        if value.is_empty() || value.contains(['"', '=']) {
            return Err(format!("{condition:?} has no value"));
        }
        let slot = match field {
            "state" => &mut filter.state,
            "customer" => &mut filter.customer,
            "external_reference" => &mut filter.external_reference,
            "needs_attention" => {
                let flag = value.parse().map_err(|_| format!("{value:?} is neither true nor false"))?;
                if filter.needs_attention.replace(flag).is_some() {
                    return Err(format!("{field:?} stands twice"));
                }
                continue;
            }
            other => return Err(format!("has no field {other:?}")),
        };
        if slot.replace(value.to_owned()).is_some() {
            return Err(format!("{field:?} stands twice"));
        }
    }
    Ok(filter)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conditions_are_joined_by_and() {
        let filter = parse(r#"state=ORDER_STATE_CONFIRMED AND customer="users/1" AND needs_attention = true"#).unwrap();
        assert_eq!(filter.state.as_deref(), Some("ORDER_STATE_CONFIRMED"));
        assert_eq!(filter.customer.as_deref(), Some("users/1"));
        assert_eq!((filter.needs_attention, filter.external_reference), (Some(true), None));
        assert_eq!(parse(""), Ok(Filter::default()));
    }

    #[test]
    fn what_is_no_filter_is_refused() {
        let wrong =
            ["state", "state=", "needs_attention=yes", "color=red", "state=A AND state=B", "state=A OR state=B"];
        for text in wrong {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
