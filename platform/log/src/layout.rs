//! The shape of a derived table, asked of the engine: columns, key, and the statement to read it.

use std::cmp::Ordering;

use store::{Row, Tx, Value, params};

use crate::Error;

/// A derived table as checks handle it.
#[derive(Debug, Clone)]
pub(crate) struct Layout {
    pub(crate) table: &'static str,
    /// Every row in the order of the key: the row id where that is the key, then all columns.
    pub(crate) select: String,
    /// Names of the columns of `select`.
    columns: Vec<String>,
    /// Which of them are the key.
    key: Vec<usize>,
    /// Which of them must be equal.
    compared: Vec<usize>,
}

impl Layout {
    pub(crate) async fn of(tx: &mut Tx, table: &'static str) -> Result<Self, Error> {
        let rows = tx.query("SELECT name, pk FROM pragma_table_info($1) ORDER BY cid", params![table]).await?;
        let mut columns: Vec<(String, i64)> = Vec::new();
        for row in &rows {
            columns.push((row.get("name")?, row.get("pk")?));
        }
        Ok(Self::from_columns(table, columns))
    }

    /// `columns` with their place in the primary key, from 1, or 0.
    fn from_columns(table: &'static str, columns: Vec<(String, i64)>) -> Self {
        // The row id is the key of a table that declares none: a full-text table.
        let with_row_id = usize::from(columns.iter().all(|(_, place)| *place == 0));
        let mut key: Vec<(i64, usize)> = columns
            .iter()
            .enumerate()
            .filter(|(_, (_, place))| *place > 0)
            .map(|(at, (_, place))| (*place, at))
            .collect();
        key.sort_unstable();
        let mut key: Vec<usize> = key.into_iter().map(|(_, at)| at).collect();
        let mut names: Vec<String> = Vec::new();
        if with_row_id == 1 {
            key.push(0);
            names.push("rowid".to_owned());
        }
        names.extend(columns.into_iter().map(|(name, _)| name));
        let quoted: Vec<String> = names.iter().map(|name| format!("\"{name}\"")).collect();
        let order: Vec<&str> = key.iter().filter_map(|at| quoted.get(*at)).map(String::as_str).collect();
        Self {
            table,
            select: format!("SELECT {} FROM {table} ORDER BY {}", quoted.join(", "), order.join(", ")),
            compared: (with_row_id..names.len()).collect(),
            columns: names,
            key,
        }
    }

    pub(crate) fn key_of<'a>(&'a self, row: &'a Row) -> impl Iterator<Item = &'a Value> {
        self.key.iter().filter_map(|at| row.values().get(*at))
    }

    /// The order of two rows by key, as the engine sorts.
    pub(crate) fn order(&self, left: &Row, right: &Row) -> Ordering {
        self.key_of(left)
            .zip(self.key_of(right))
            .map(|(left, right)| compare(left, right))
            .find(|order| *order != Ordering::Equal)
            .unwrap_or(Ordering::Equal)
    }

    /// The columns in which two rows of one key differ.
    pub(crate) fn differing(&self, left: &Row, right: &Row) -> Vec<String> {
        self.compared
            .iter()
            .filter(|at| left.values().get(**at) != right.values().get(**at))
            .filter_map(|at| self.columns.get(*at).cloned())
            .collect()
    }
}

/// Within one column all values have one type, so the order between types only has to exist.
fn compare(left: &Value, right: &Value) -> Ordering {
    match (left, right) {
        (Value::Int(left), Value::Int(right)) => left.cmp(right),
        (Value::Real(left), Value::Real(right)) => left.total_cmp(right),
        (Value::Text(left), Value::Text(right)) => left.as_bytes().cmp(right.as_bytes()),
        (Value::Bytes(left), Value::Bytes(right)) => left.cmp(right),
        (Value::Bool(left), Value::Bool(right)) => left.cmp(right),
        (Value::TooLarge(left), Value::TooLarge(right)) => left.cmp(right),
        (left, right) => rank(left).cmp(&rank(right)),
    }
}

/// SQLite's order of types: null, numbers, text, bytes.
fn rank(value: &Value) -> u8 {
    match value {
        Value::Null => 0,
        Value::Int(_) | Value::Real(_) | Value::Bool(_) | Value::TooLarge(_) => 1,
        Value::Text(_) => 2,
        Value::Bytes(_) => 3,
    }
}
