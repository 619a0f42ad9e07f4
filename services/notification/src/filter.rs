//! The filter of ListNotifications: conditions joined by `AND`, each typed. Pure.

/// What is listed; empty fields leave it open.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Filter {
    pub(crate) order: String,
    pub(crate) customer: String,
    /// As on the wire, `NOTIFICATION_STATE_SENT`.
    pub(crate) state: String,
}

/// Reads a filter, or says what is wrong with it.
pub(crate) fn parse(text: &str) -> Result<Filter, String> {
    let mut filter = Filter::default();
    if text.trim().is_empty() {
        return Ok(filter);
    }
    for condition in text.split(" AND ") {
        let (field, value) = condition.split_once('=').ok_or_else(|| format!("{condition:?} is no condition"))?;
        let value = value.trim();
        let quoted = value.strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
        let value = quoted.unwrap_or(value);
        let known = value.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._~-/".contains(&byte));
        if value.is_empty() || !known {
            return Err(format!("{condition:?} has no valid value"));
        }
        let place = match field.trim() {
            "order" => &mut filter.order,
            "customer" => &mut filter.customer,
            "state" => &mut filter.state,
            other => return Err(format!("{other:?} is no field to filter by; order, customer and state are")),
        };
        if !place.is_empty() {
            return Err(format!("{} is given twice", field.trim()));
        }
        *place = value.to_owned();
    }
    Ok(filter)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conditions_are_joined_by_and() {
        let filter = parse(r#"order="orders/1" AND state = NOTIFICATION_STATE_SENT"#).unwrap();
        assert_eq!((filter.order.as_str(), filter.state.as_str()), ("orders/1", "NOTIFICATION_STATE_SENT"));
        assert_eq!(parse("  ").unwrap(), Filter::default());
    }

    #[test]
    fn what_is_no_typed_condition_is_refused() {
        for bad in ["order", "order=", "price=1", "state=A AND state=B", "order=' OR 1=1", "order=\"a\" OR order=\"b\""]
        {
            parse(bad).unwrap_err();
        }
    }
}
