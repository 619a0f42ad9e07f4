//! The filter of ListShipments: conditions `field=value` joined by `AND`, values in double quotes or bare.

/// Conditions; an empty one holds for everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Filter {
    /// `order="orders/..."`.
    pub(crate) order: String,
    /// `state=SHIPMENT_STATE_...`, as the contract names it.
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
        let value = value.strip_prefix('"').and_then(|inner| inner.strip_suffix('"')).unwrap_or(value);
        if value.is_empty() || value.contains(['"', '=']) {
            return Err(format!("{condition:?} has no value"));
        }
        let slot = match field.trim() {
            "order" => &mut filter.order,
            "state" => &mut filter.state,
            other => return Err(format!("has no field {other:?}")),
        };
        if !slot.is_empty() {
            return Err(format!("{:?} stands twice", field.trim()));
        }
        value.clone_into(slot);
    }
    Ok(filter)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conditions_are_joined_by_and() {
        let filter = parse(r#"order="orders/1" AND state = SHIPMENT_STATE_PACKED"#).unwrap();
        assert_eq!((filter.order.as_str(), filter.state.as_str()), ("orders/1", "SHIPMENT_STATE_PACKED"));
        assert_eq!(parse("  "), Ok(Filter::default()));
    }

    #[test]
    fn what_is_no_filter_is_refused() {
        for text in ["order", "order=", r#"order="" "#, "color=red", "state=A AND state=B", "state=A OR state=B"] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
