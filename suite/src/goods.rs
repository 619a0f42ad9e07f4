//! Goods on their way into the catalogue: plain data from a file or the sample, before they become messages.
//!
//! Amounts are exact from the first character on: text to integer minor units, never through a float.

use std::fmt;

/// Something to buy, in one or more variants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Product {
    /// Last part of the resource name, `[A-Za-z0-9._~-]{1,64}`; empty when the source names none.
    pub id: String,
    /// Title, not empty.
    pub title: String,
    /// Description, plain text.
    pub description: String,
    /// Brand, empty when there is none.
    pub brand: String,
    /// Last parts of the categories' names.
    pub categories: Vec<String>,
    /// False for what has no stock: postage, gift cards, services.
    pub stocked: bool,
    /// Id in the system it comes from, empty when there is none.
    pub external_id: String,
    /// Variants, at least one.
    pub variants: Vec<Variant>,
}

/// One form of a product.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Variant {
    /// Stock keeping unit, see [`is_sku`].
    pub sku: String,
    /// What sets it apart; empty for an only variant.
    pub title: String,
    /// Name and value of each option.
    pub options: Vec<(String, String)>,
    /// Prices without tax, one a currency.
    pub prices: Vec<Price>,
    /// Weight in grams; 0 when unknown.
    pub weight_grams: i32,
    /// Tax in hundredths of a per cent.
    pub tax_basis_points: i32,
    /// What lies in the warehouses at the start.
    pub stock: Vec<Stock>,
}

/// An amount of one currency.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Price {
    /// ISO 4217 code.
    pub currency: String,
    /// Minor units: cents of EUR, USD, GBP.
    pub minor: i64,
}

/// A quantity in one warehouse.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stock {
    /// Last part of the warehouse's name.
    pub warehouse: String,
    /// Pieces.
    pub quantity: i64,
}

/// Why a text is no amount.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AmountError {
    /// Not an optional minus, digits, and an optional point with digits.
    Malformed,
    /// More decimals than the currency has, not counting zeros at the end.
    Decimals,
    /// More than fits.
    TooLarge,
}

impl fmt::Display for AmountError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            AmountError::Malformed => "is no decimal number",
            AmountError::Decimals => "has more decimals than its currency",
            AmountError::TooLarge => "is too large",
        })
    }
}

impl std::error::Error for AmountError {}

/// Reads a decimal number as minor units of a currency with `decimals` decimals: `"12.5"` with 2 is 1250.
pub fn parse_minor(text: &str, decimals: u32) -> Result<i64, AmountError> {
    let (negative, digits) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let (whole, fraction) = match digits.split_once('.') {
        Some((_, "")) => return Err(AmountError::Malformed),
        Some((whole, fraction)) => (whole, fraction.trim_end_matches('0')),
        None => (digits, ""),
    };
    let are_digits = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
    if whole.is_empty() || !are_digits(whole) || !are_digits(fraction) {
        return Err(AmountError::Malformed);
    }
    if fraction.len() > decimals as usize {
        return Err(AmountError::Decimals);
    }
    let mut minor: i64 = 0;
    let zeros = decimals as usize - fraction.len();
    let padding = std::iter::repeat_n(b'0', zeros);
    for byte in whole.bytes().chain(fraction.bytes()).chain(padding) {
        minor = minor
            .checked_mul(10)
            .and_then(|minor| minor.checked_add(i64::from(byte - b'0')))
            .ok_or(AmountError::TooLarge)?;
    }
    Ok(if negative { -minor } else { minor })
}

/// Decimals of a currency, or nothing for one that Stoa does not sell in.
pub fn decimals(currency: &str) -> Option<u32> {
    match currency {
        "JPY" => Some(0),
        "AUD" | "CAD" | "CHF" | "CZK" | "DKK" | "EUR" | "GBP" | "NOK" | "NZD" | "PLN" | "SEK" | "USD" => Some(2),
        _ => None,
    }
}

/// Whether a text may be a stock keeping unit: letters, digits, space, `.`, `_`, `-`, 1 to 64.
pub fn is_sku(text: &str) -> bool {
    let inner = |byte: u8| byte.is_ascii_alphanumeric() || b" ._-".contains(&byte);
    text.len() <= 64 && text.bytes().next().is_some_and(|byte| byte.is_ascii_alphanumeric()) && text.bytes().all(inner)
}

/// The last part of a resource name made of any text: lower case letters, digits and single dashes.
pub fn slug(text: &str) -> String {
    let mut slug = String::with_capacity(text.len());
    for character in text.chars() {
        if character.is_ascii_alphanumeric() {
            slug.push(character.to_ascii_lowercase());
        } else if !slug.is_empty() && !slug.ends_with('-') {
            slug.push('-');
        }
        if slug.len() >= 64 {
            break;
        }
    }
    slug.trim_end_matches('-').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_read_exactly_or_refused() {
        for (text, expected) in [
            ("0", Ok(0)),
            ("2.55", Ok(255)),
            ("2.5", Ok(250)),
            ("2.500", Ok(250)),
            ("-11062.06", Ok(-1_106_206)),
            ("90071992547409.93", Ok(9_007_199_254_740_993)),
            ("0.001", Err(AmountError::Decimals)),
            ("", Err(AmountError::Malformed)),
            ("-", Err(AmountError::Malformed)),
            (".5", Err(AmountError::Malformed)),
            ("5.", Err(AmountError::Malformed)),
            ("1e3", Err(AmountError::Malformed)),
            ("+1", Err(AmountError::Malformed)),
            ("1,5", Err(AmountError::Malformed)),
            ("NaN", Err(AmountError::Malformed)),
            ("92233720368547758.08", Err(AmountError::TooLarge)),
        ] {
            assert_eq!(parse_minor(text, 2), expected, "{text}");
        }
        assert_eq!(parse_minor("12", 0), Ok(12));
        assert_eq!(parse_minor("12.5", 0), Err(AmountError::Decimals));
    }

    #[test]
    fn slugs_and_skus_have_their_letters() {
        assert_eq!(slug("Ski/boarding & more!"), "ski-boarding-more");
        assert!(is_sku("BANK CHARGES") && is_sku("gift_0001_40") && is_sku("85123A"));
        assert!(!is_sku("") && !is_sku(" A") && !is_sku("a/b") && !is_sku(&"A".repeat(65)));
    }
}
