//! The filters of lists and searches: conditions joined by `AND`, read into values. What a caller writes reaches the
//! store only as parameters.

use contract::{Currency, Money};

use crate::product::State;

/// Conditions a filter may have.
const MOST_CONDITIONS: usize = 20;

/// What a filter asks for; all of it must hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Filter {
    /// (field, value) of `brand`, `category`, `option.{option}`.
    pub(crate) facets: Vec<(String, String)>,
    /// The state, where it is said.
    pub(crate) state: Option<State>,
    /// The lowest price, in minor units.
    pub(crate) low: Option<i64>,
    /// The highest price, in minor units.
    pub(crate) high: Option<i64>,
}

/// Which filter is read: each method's contract says what it takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Grammar {
    /// `brand`, `category`, `state`.
    List,
    /// `brand`, `category`, `option.{option}`, `price` in a currency.
    Search(Currency),
}

impl Filter {
    /// Reads a filter, or says what is wrong with it.
    pub(crate) fn parse(text: &str, grammar: Grammar) -> Result<Self, String> {
        let mut filter = Self::default();
        let mut words = Words { rest: text };
        if words.peek().is_none() {
            return Ok(filter);
        }
        for _ in 0..MOST_CONDITIONS {
            let field = words.field()?;
            let operator = words.operator().ok_or_else(|| format!("needs =, >= or <= after {field}"))?;
            let value = words.value()?.ok_or_else(|| format!("needs a value after {field}{operator}"))?;
            filter.condition(&field, operator, value, grammar)?;
            match words.bare() {
                "" if words.peek().is_none() => return Ok(filter),
                "AND" => {}
                _ => return Err("must join conditions by AND".to_owned()),
            }
        }
        Err(format!("must have at most {MOST_CONDITIONS} conditions"))
    }

    fn condition(&mut self, field: &str, operator: &str, value: String, grammar: Grammar) -> Result<(), String> {
        match (field, operator, grammar) {
            ("brand" | "category", "=", _) => self.facets.push((field.to_owned(), value)),
            ("state", "=", Grammar::List) => {
                self.state = Some(match value.as_str() {
                    "PRODUCT_STATE_ACTIVE" => State::Active,
                    "PRODUCT_STATE_ARCHIVED" => State::Archived,
                    _ => return Err(format!("has no state {value}")),
                });
            }
            ("price", ">=", Grammar::Search(currency)) => {
                let low = amount(&value, currency)?;
                self.low = Some(self.low.map_or(low, |before| before.max(low)));
            }
            ("price", "<=", Grammar::Search(currency)) => {
                let high = amount(&value, currency)?;
                self.high = Some(self.high.map_or(high, |before| before.min(high)));
            }
            (option, "=", Grammar::Search(_)) if option.len() > "option.".len() && option.starts_with("option.") => {
                self.facets.push((option.to_owned(), value));
            }
            _ => return Err(format!("has no condition {field}{operator}")),
        }
        Ok(())
    }
}

/// An amount such as `10` or `10.50` in minor units, exactly.
fn amount(text: &str, currency: Currency) -> Result<i64, String> {
    let wrong = || format!("has no amount {text}");
    let (units, fraction) = text.split_once('.').unwrap_or((text, ""));
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if units.is_empty() || !digits(units) || !digits(fraction) || fraction.len() > 9 {
        return Err(wrong());
    }
    let nanos: i32 = format!("{fraction:0<9}").parse().map_err(|_| wrong())?;
    let units = units.parse().map_err(|_| wrong())?;
    Money::from_wire(currency.code(), units, nanos).map(|money| money.minor).map_err(|error| error.to_string())
}

/// A field as a filter must write it.
pub(crate) fn quoted_field(field: &str) -> String {
    match field.strip_prefix("option.") {
        Some(option) if !option.chars().all(is_bare) => {
            format!("option.\"{}\"", option.replace('\\', "\\\\").replace('"', "\\\""))
        }
        Some(_) | None => field.to_owned(),
    }
}

fn is_bare(char: char) -> bool {
    char.is_alphanumeric() || "._~/+-".contains(char)
}

/// What is left of a filter to read.
struct Words<'a> {
    rest: &'a str,
}

impl<'a> Words<'a> {
    fn peek(&mut self) -> Option<char> {
        self.rest = self.rest.trim_start();
        self.rest.chars().next()
    }

    fn bare(&mut self) -> &'a str {
        self.rest = self.rest.trim_start();
        let end = self.rest.find(|char| !is_bare(char)).unwrap_or(self.rest.len());
        let (word, rest) = self.rest.split_at(end);
        self.rest = rest;
        word
    }

    /// A field, whose last part may stand in quotes.
    fn field(&mut self) -> Result<String, String> {
        let mut field = self.bare().to_owned();
        if field == "option." && self.rest.starts_with('"') {
            field.push_str(&self.quoted()?);
        }
        if field.is_empty() { Err("needs a field at the start of each condition".to_owned()) } else { Ok(field) }
    }

    fn operator(&mut self) -> Option<&'static str> {
        self.peek();
        let found = [">=", "<=", "="].into_iter().find(|operator| self.rest.starts_with(operator))?;
        self.rest = self.rest.get(found.len()..).unwrap_or_default();
        Some(found)
    }

    fn value(&mut self) -> Result<Option<String>, String> {
        if self.peek() == Some('"') {
            return self.quoted().map(Some);
        }
        let word = self.bare();
        Ok((!word.is_empty()).then(|| word.to_owned()))
    }

    /// A text in quotes; a backslash keeps the character after it.
    fn quoted(&mut self) -> Result<String, String> {
        let mut text = String::new();
        let mut chars = self.rest.char_indices().skip(1);
        while let Some((at, char)) = chars.next() {
            match char {
                '"' => {
                    self.rest = self.rest.get(at + 1..).unwrap_or_default();
                    return Ok(text);
                }
                '\\' => text.extend(chars.next().map(|(_, kept)| kept)),
                char => text.push(char),
            }
        }
        Err("has a quote that does not end".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SEARCH: Grammar = Grammar::Search(Currency::EUR);

    fn facet(field: &str, value: &str) -> (String, String) {
        (field.to_owned(), value.to_owned())
    }

    #[test]
    fn conditions_of_the_contract_are_read() {
        let text =
            r#"brand="A \"B\" C" AND category=categories/mugs AND option.color="red" AND price>=10.00 AND price<=20.5"#;
        let filter = Filter::parse(text, SEARCH).unwrap();
        assert_eq!(
            filter,
            Filter {
                facets: vec![
                    facet("brand", "A \"B\" C"),
                    facet("category", "categories/mugs"),
                    facet("option.color", "red")
                ],
                state: None,
                low: Some(1000),
                high: Some(2050),
            }
        );
        let archived = Filter::parse(" state = PRODUCT_STATE_ARCHIVED ", Grammar::List).unwrap();
        assert_eq!(archived.state, Some(State::Archived));
        assert_eq!(Filter::parse("  ", SEARCH), Ok(Filter::default()));
    }

    #[test]
    fn what_is_no_filter_is_named() {
        for text in [
            "brand",
            "brand=",
            "brand=\"a",
            "=a",
            "brand=a OR brand=b",
            "brand=a AND",
            "price=10",
            "price>=ten",
            "price>=10.001",
            "price>=99999999999999999999",
            "state=PRODUCT_STATE_ACTIVE",
            "option.=a",
            "colour=red",
            "brand>=a",
            "brand=a;DROP TABLE products",
        ] {
            assert!(Filter::parse(text, SEARCH).is_err(), "{text}");
        }
        assert!(Filter::parse("price>=1", Grammar::List).is_err());
        assert!(Filter::parse("state=SOLD", Grammar::List).is_err());
        assert!(Filter::parse(&"brand=a AND ".repeat(30), SEARCH).is_err());
    }

    proptest! {
        #[test]
        fn no_text_breaks_the_reader(text in ".{0,80}") {
            let _ = Filter::parse(&text, SEARCH);
        }

        #[test]
        fn a_facet_can_be_filtered_by_whatever_its_option_is_called(name in "[^\0]{1,20}", value in "[^\0]{1,20}") {
            let quoted = value.replace('\\', "\\\\").replace('"', "\\\"");
            let field = format!("option.{name}");
            let filter = Filter::parse(&format!("{}=\"{quoted}\"", quoted_field(&field)), SEARCH);
            prop_assert_eq!(filter.map(|filter| filter.facets), Ok(vec![(field, value)]));
        }
    }
}
