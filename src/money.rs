//! `google.type.Money` as the money of the domain, and back.

use ::contract::{Money, MoneyError};

use crate::google::r#type;

impl From<Money> for r#type::Money {
    fn from(money: Money) -> Self {
        let (currency_code, units, nanos) = money.to_wire();
        Self { currency_code, units, nanos }
    }
}

impl TryFrom<&r#type::Money> for Money {
    type Error = MoneyError;

    fn try_from(money: &r#type::Money) -> Result<Self, MoneyError> {
        Self::from_wire(&money.currency_code, money.units, money.nanos)
    }
}
