//! Values, parameters and rows: the types both engines have in common.
//!
//! Columns are TEXT, BIGINT, BYTEA or BOOLEAN (and double precision for what is computed, never for
//! money). SQLite has no BOOLEAN, so `Bool(true)` and `Int(1)` are equal here.

use std::sync::Arc;

use jiff::Timestamp;

use crate::Error;

/// A value of a column or parameter.
#[derive(Debug, Clone)]
pub enum Value {
    /// SQL NULL.
    Null,
    /// BIGINT; also timestamps, as microseconds since 1970.
    Int(i64),
    /// Double precision, for computed columns such as a rank.
    Real(f64),
    /// TEXT.
    Text(String),
    /// BYTEA, on SQLite BLOB.
    Bytes(Vec<u8>),
    /// BOOLEAN.
    Bool(bool),
    /// A number above `i64::MAX`: no column takes it, so binding it is an error.
    TooLarge(u64),
}

impl PartialEq for Value {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Null, Self::Null) => true,
            (Self::Int(a), Self::Int(b)) => a == b,
            (Self::Real(a), Self::Real(b)) => a.to_bits() == b.to_bits(),
            (Self::Text(a), Self::Text(b)) => a == b,
            (Self::Bytes(a), Self::Bytes(b)) => a == b,
            (Self::Bool(a), Self::Bool(b)) => a == b,
            (Self::Bool(a), Self::Int(b)) | (Self::Int(b), Self::Bool(a)) => i64::from(*a) == *b,
            (Self::TooLarge(a), Self::TooLarge(b)) => a == b,
            _ => false,
        }
    }
}

/// The parameters `$1`, `$2`, ... of a statement: `params![id, quantity]`.
#[macro_export]
macro_rules! params {
    () => { &[] as &[$crate::Value] };
    ($($value:expr),+ $(,)?) => { &[$($crate::Value::from($value)),+] as &[$crate::Value] };
}

macro_rules! from_signed {
    ($($number:ty),*) => {$(
        impl From<$number> for Value {
            fn from(value: $number) -> Self {
                Self::Int(i64::from(value))
            }
        }
    )*};
}
from_signed!(i8, i16, i32, i64, u8, u16, u32);

impl From<u64> for Value {
    fn from(value: u64) -> Self {
        i64::try_from(value).map_or(Self::TooLarge(value), Self::Int)
    }
}

impl From<usize> for Value {
    fn from(value: usize) -> Self {
        Self::from(value as u64)
    }
}

impl From<bool> for Value {
    fn from(value: bool) -> Self {
        Self::Bool(value)
    }
}

impl From<f64> for Value {
    fn from(value: f64) -> Self {
        Self::Real(value)
    }
}

impl From<&str> for Value {
    fn from(value: &str) -> Self {
        Self::Text(value.to_owned())
    }
}

impl From<String> for Value {
    fn from(value: String) -> Self {
        Self::Text(value)
    }
}

impl From<&String> for Value {
    fn from(value: &String) -> Self {
        Self::Text(value.clone())
    }
}

impl From<Vec<u8>> for Value {
    fn from(value: Vec<u8>) -> Self {
        Self::Bytes(value)
    }
}

impl From<&Vec<u8>> for Value {
    fn from(value: &Vec<u8>) -> Self {
        Self::Bytes(value.clone())
    }
}

impl From<&[u8]> for Value {
    fn from(value: &[u8]) -> Self {
        Self::Bytes(value.to_vec())
    }
}

impl<const N: usize> From<[u8; N]> for Value {
    fn from(value: [u8; N]) -> Self {
        Self::Bytes(value.to_vec())
    }
}

impl<const N: usize> From<&[u8; N]> for Value {
    fn from(value: &[u8; N]) -> Self {
        Self::Bytes(value.to_vec())
    }
}

impl From<Timestamp> for Value {
    fn from(value: Timestamp) -> Self {
        Self::Int(value.as_microsecond())
    }
}

impl<T: Into<Value>> From<Option<T>> for Value {
    fn from(value: Option<T>) -> Self {
        value.map_or(Self::Null, Into::into)
    }
}

impl From<&Value> for Value {
    fn from(value: &Value) -> Self {
        value.clone()
    }
}

impl Value {
    /// What the value is, for messages; never its content, which may be personal.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Int(_) => "integer",
            Self::Real(_) => "real",
            Self::Text(_) => "text",
            Self::Bytes(_) => "bytes",
            Self::Bool(_) => "boolean",
            Self::TooLarge(_) => "integer above 2^63-1",
        }
    }
}

/// What can be read from a column.
pub trait FromValue: Sized {
    /// The name of the type in error messages.
    const EXPECTED: &'static str;

    /// The value as this type, or the value back.
    fn from_value(value: &Value) -> Option<Self>;
}

macro_rules! from_integer {
    ($($number:ty),*) => {$(
        impl FromValue for $number {
            const EXPECTED: &'static str = stringify!($number);

            fn from_value(value: &Value) -> Option<Self> {
                match value {
                    Value::Int(number) => Self::try_from(*number).ok(),
                    Value::Null | Value::Real(_) | Value::Text(_) | Value::Bytes(_) | Value::Bool(_) | Value::TooLarge(_) => None,
                }
            }
        }
    )*};
}
from_integer!(i32, i64, u8, u16, u32, u64, usize);

impl FromValue for bool {
    const EXPECTED: &'static str = "boolean";

    fn from_value(value: &Value) -> Option<Self> {
        match value {
            Value::Bool(flag) => Some(*flag),
            Value::Int(0) => Some(false),
            Value::Int(1) => Some(true),
            Value::Null | Value::Int(_) | Value::Real(_) | Value::Text(_) | Value::Bytes(_) | Value::TooLarge(_) => {
                None
            }
        }
    }
}

impl FromValue for f64 {
    const EXPECTED: &'static str = "real";

    fn from_value(value: &Value) -> Option<Self> {
        match value {
            Value::Real(number) => Some(*number),
            Value::Null | Value::Int(_) | Value::Text(_) | Value::Bytes(_) | Value::Bool(_) | Value::TooLarge(_) => {
                None
            }
        }
    }
}

impl FromValue for String {
    const EXPECTED: &'static str = "text";

    fn from_value(value: &Value) -> Option<Self> {
        match value {
            Value::Text(text) => Some(text.clone()),
            Value::Null | Value::Int(_) | Value::Real(_) | Value::Bytes(_) | Value::Bool(_) | Value::TooLarge(_) => {
                None
            }
        }
    }
}

impl FromValue for Vec<u8> {
    const EXPECTED: &'static str = "bytes";

    fn from_value(value: &Value) -> Option<Self> {
        match value {
            Value::Bytes(bytes) => Some(bytes.clone()),
            Value::Null | Value::Int(_) | Value::Real(_) | Value::Text(_) | Value::Bool(_) | Value::TooLarge(_) => None,
        }
    }
}

impl<const N: usize> FromValue for [u8; N] {
    const EXPECTED: &'static str = "bytes of a fixed length";

    fn from_value(value: &Value) -> Option<Self> {
        match value {
            Value::Bytes(bytes) => bytes.as_slice().try_into().ok(),
            Value::Null | Value::Int(_) | Value::Real(_) | Value::Text(_) | Value::Bool(_) | Value::TooLarge(_) => None,
        }
    }
}

impl FromValue for Timestamp {
    const EXPECTED: &'static str = "timestamp in microseconds";

    fn from_value(value: &Value) -> Option<Self> {
        i64::from_value(value).and_then(|micros| Timestamp::from_microsecond(micros).ok())
    }
}

impl FromValue for Value {
    const EXPECTED: &'static str = "value";

    fn from_value(value: &Value) -> Option<Self> {
        Some(value.clone())
    }
}

impl<T: FromValue> FromValue for Option<T> {
    const EXPECTED: &'static str = T::EXPECTED;

    fn from_value(value: &Value) -> Option<Self> {
        if matches!(value, Value::Null) { Some(None) } else { T::from_value(value).map(Some) }
    }
}

/// A row of a result, owned, with the names of its columns.
#[derive(Debug, Clone)]
pub struct Row {
    pub(crate) columns: Arc<[Box<str>]>,
    pub(crate) values: Vec<Value>,
}

impl PartialEq for Row {
    fn eq(&self, other: &Self) -> bool {
        self.values == other.values && self.columns == other.columns
    }
}

impl Row {
    /// The value of the column with this name.
    pub fn get<T: FromValue>(&self, column: &str) -> Result<T, Error> {
        let value = self.columns.iter().position(|name| &**name == column).and_then(|at| self.values.get(at));
        let Some(value) = value else {
            return Err(Error::Mismatch {
                column: column.to_owned(),
                expected: T::EXPECTED,
                found: "no such column".to_owned(),
            });
        };
        T::from_value(value).ok_or_else(|| Error::Mismatch {
            column: column.to_owned(),
            expected: T::EXPECTED,
            found: value.kind().to_owned(),
        })
    }

    /// The values in the order of the columns.
    pub fn values(&self) -> &[Value] {
        &self.values
    }

    /// The names of the columns.
    pub fn columns(&self) -> impl Iterator<Item = &str> {
        self.columns.iter().map(|name| &**name)
    }
}
