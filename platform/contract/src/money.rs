//! Money: a currency and an integer count of its minor unit. No floating point takes part anywhere.

use std::fmt;
use std::str::FromStr;

const NANOS_PER_UNIT: i128 = 1_000_000_000;

/// An amount in one currency.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Money {
    /// The currency.
    pub currency: Currency,
    /// The amount in the currency's minor unit: cents, pence, yen.
    pub minor: i64,
}

impl Money {
    /// An amount of the currency's minor unit.
    pub const fn new(currency: Currency, minor: i64) -> Self {
        Self { currency, minor }
    }

    /// Nothing, in this currency.
    pub const fn zero(currency: Currency) -> Self {
        Self::new(currency, 0)
    }

    /// Reads the three fields of `google.type.Money`.
    ///
    /// Refused are unknown currencies, units and nanos of different sign, nanos of a whole unit or more, fractions of a
    /// minor unit, and amounts beyond 64 bits.
    pub fn from_wire(currency_code: &str, units: i64, nanos: i32) -> Result<Self, MoneyError> {
        let currency: Currency = currency_code.parse()?;
        if i128::from(nanos).abs() >= NANOS_PER_UNIT {
            return Err(MoneyError::NanosOutOfRange { nanos });
        }
        if (units > 0 && nanos < 0) || (units < 0 && nanos > 0) {
            return Err(MoneyError::MixedSigns { units, nanos });
        }
        let total = i128::from(units) * NANOS_PER_UNIT + i128::from(nanos);
        let step = NANOS_PER_UNIT / currency.minor_per_unit();
        if total % step != 0 {
            return Err(MoneyError::Fraction { currency, nanos });
        }
        let minor = i64::try_from(total / step).map_err(|_| MoneyError::Overflow)?;
        Ok(Self { currency, minor })
    }

    /// The three fields of `google.type.Money`: currency code, units, nanos.
    pub fn to_wire(&self) -> (String, i64, i32) {
        let per_unit = self.currency.minor_per_unit();
        let minor = i128::from(self.minor);
        let nanos = minor % per_unit * (NANOS_PER_UNIT / per_unit);
        // |minor / per_unit| <= |minor| and |nanos| < 10^9, so neither conversion can lose anything.
        (self.currency.code().to_owned(), (minor / per_unit) as i64, nanos as i32)
    }

    /// The sum, if both are of one currency and it fits.
    pub fn checked_add(self, other: Self) -> Result<Self, MoneyError> {
        self.same_currency(other)?;
        let minor = self.minor.checked_add(other.minor).ok_or(MoneyError::Overflow)?;
        Ok(Self { minor, ..self })
    }

    /// The difference, if both are of one currency and it fits.
    pub fn checked_sub(self, other: Self) -> Result<Self, MoneyError> {
        self.same_currency(other)?;
        let minor = self.minor.checked_sub(other.minor).ok_or(MoneyError::Overflow)?;
        Ok(Self { minor, ..self })
    }

    /// The amount for so many pieces, if it fits.
    pub fn checked_mul(self, quantity: i64) -> Result<Self, MoneyError> {
        let minor = self.minor.checked_mul(quantity).ok_or(MoneyError::Overflow)?;
        Ok(Self { minor, ..self })
    }

    fn same_currency(self, other: Self) -> Result<(), MoneyError> {
        if self.currency == other.currency {
            Ok(())
        } else {
            Err(MoneyError::CurrencyMismatch { left: self.currency, right: other.currency })
        }
    }
}

/// `12.34 EUR`, exactly.
impl fmt::Display for Money {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = if self.minor < 0 { "-" } else { "" };
        let per_unit = self.currency.minor_per_unit() as u64;
        let magnitude = self.minor.unsigned_abs();
        let code = self.currency;
        match self.currency.exponent() {
            0 => write!(f, "{sign}{magnitude} {code}"),
            digits => {
                let (units, rest) = (magnitude / per_unit, magnitude % per_unit);
                write!(f, "{sign}{units}.{rest:0width$} {code}", width = digits as usize)
            }
        }
    }
}

/// A currency that the shop can sell in, by its ISO 4217 code.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Currency([u8; 3]);

impl Currency {
    /// The euro.
    pub const EUR: Self = Self(*b"EUR");
    /// The pound sterling.
    pub const GBP: Self = Self(*b"GBP");
    /// The dollar of the United States.
    pub const USD: Self = Self(*b"USD");
    /// The yen.
    pub const JPY: Self = Self(*b"JPY");

    /// The ISO 4217 code.
    pub fn code(&self) -> &str {
        // Only ASCII codes from the table below are ever stored.
        std::str::from_utf8(&self.0).unwrap_or("???")
    }

    /// How many decimal digits its minor unit has.
    pub const fn exponent(&self) -> u32 {
        match &self.0 {
            b"JPY" | b"KRW" | b"ISK" | b"CLP" | b"VND" => 0,
            _ => 2,
        }
    }

    const fn minor_per_unit(&self) -> i128 {
        10_i128.pow(self.exponent())
    }
}

/// Codes of two digits; those without a minor unit are listed with the exponent as well.
const KNOWN: [&[u8; 3]; 34] = [
    b"AED", b"ARS", b"AUD", b"BGN", b"BRL", b"CAD", b"CHF", b"CLP", b"CNY", b"CZK", b"DKK", b"EUR", b"GBP", b"HKD",
    b"HUF", b"ILS", b"INR", b"ISK", b"JPY", b"KRW", b"MXN", b"MYR", b"NOK", b"NZD", b"PHP", b"PLN", b"RON", b"SEK",
    b"SGD", b"THB", b"TRY", b"USD", b"VND", b"ZAR",
];

impl FromStr for Currency {
    type Err = MoneyError;

    fn from_str(code: &str) -> Result<Self, MoneyError> {
        KNOWN
            .iter()
            .find(|known| known.as_slice() == code.as_bytes())
            .map(|known| Self(**known))
            .ok_or_else(|| MoneyError::UnknownCurrency { code: code.chars().take(8).collect() })
    }
}

impl fmt::Display for Currency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.code())
    }
}

impl fmt::Debug for Currency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.code())
    }
}

/// Why something is no amount of money.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MoneyError {
    /// The currency is not in the table.
    #[error("currency {code:?} is not known")]
    UnknownCurrency {
        /// What was given, cut to a few characters.
        code: String,
    },
    /// Nanos make up a whole unit or more.
    #[error("nanos must lie between -999999999 and 999999999, not {nanos}")]
    NanosOutOfRange {
        /// What was given.
        nanos: i32,
    },
    /// Units and nanos contradict each other.
    #[error("units {units} and nanos {nanos} are of different sign")]
    MixedSigns {
        /// The units given.
        units: i64,
        /// The nanos given.
        nanos: i32,
    },
    /// The amount is no whole number of minor units.
    #[error("nanos {nanos} are no whole minor unit of {currency}")]
    Fraction {
        /// The currency given.
        currency: Currency,
        /// The nanos given.
        nanos: i32,
    },
    /// The amount does not fit 64 bits.
    #[error("the amount is too large")]
    Overflow,
    /// Two currencies met in one sum.
    #[error("{left} and {right} do not add up")]
    CurrencyMismatch {
        /// The currency of the left side.
        left: Currency,
        /// The currency of the right side.
        right: Currency,
    },
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn any_currency() -> impl Strategy<Value = Currency> {
        prop::sample::select(KNOWN.as_slice()).prop_map(|code| Currency(*code))
    }

    proptest! {
        #[test]
        fn every_amount_survives_the_wire(currency in any_currency(), minor in any::<i64>()) {
            let money = Money::new(currency, minor);
            let (code, units, nanos) = money.to_wire();
            prop_assert_eq!(Money::from_wire(&code, units, nanos), Ok(money));
        }

        #[test]
        fn whatever_the_wire_says_is_read_back_as_it_was_or_refused(units in any::<i64>(), nanos in any::<i32>()) {
            if let Ok(money) = Money::from_wire("EUR", units, nanos) {
                prop_assert_eq!(money.to_wire(), ("EUR".to_owned(), units, nanos));
            }
        }

        #[test]
        fn adding_and_taking_away_again_changes_nothing(left in any::<i64>(), right in any::<i64>()) {
            let (left, right) = (Money::new(Currency::GBP, left), Money::new(Currency::GBP, right));
            if let Ok(sum) = left.checked_add(right) {
                prop_assert_eq!(sum.checked_sub(right), Ok(left));
            }
        }
    }

    #[test]
    fn amounts_that_are_no_money_are_refused() {
        assert_eq!(Money::from_wire("XXX", 1, 0), Err(MoneyError::UnknownCurrency { code: "XXX".into() }));
        assert_eq!(Money::from_wire("eur", 1, 0), Err(MoneyError::UnknownCurrency { code: "eur".into() }));
        assert_eq!(
            Money::from_wire("EUR", 1, -10_000_000),
            Err(MoneyError::MixedSigns { units: 1, nanos: -10_000_000 })
        );
        assert_eq!(
            Money::from_wire("EUR", 0, 1_000_000_000),
            Err(MoneyError::NanosOutOfRange { nanos: 1_000_000_000 })
        );
        assert_eq!(
            Money::from_wire("EUR", 0, 1_000_000),
            Err(MoneyError::Fraction { currency: Currency::EUR, nanos: 1_000_000 })
        );
        assert_eq!(
            Money::from_wire("JPY", 5, 500_000_000),
            Err(MoneyError::Fraction { currency: Currency::JPY, nanos: 500_000_000 })
        );
        assert_eq!(Money::from_wire("EUR", i64::MAX, 0), Err(MoneyError::Overflow));
    }

    #[test]
    fn two_currencies_do_not_add_up() {
        let sum = Money::zero(Currency::EUR).checked_add(Money::zero(Currency::USD));
        assert_eq!(sum, Err(MoneyError::CurrencyMismatch { left: Currency::EUR, right: Currency::USD }));
    }

    #[test]
    fn an_amount_is_printed_with_the_digits_of_its_currency() {
        assert_eq!(Money::new(Currency::EUR, -5).to_string(), "-0.05 EUR");
        assert_eq!(Money::new(Currency::EUR, 123_456).to_string(), "1234.56 EUR");
        assert_eq!(Money::new(Currency::JPY, 980).to_string(), "980 JPY");
        assert_eq!(Money::new(Currency::GBP, i64::MIN).to_string(), "-92233720368547758.08 GBP");
    }
}
