//! Whole tables: read in a canonical order, compared, and replaced by the rows of a rebuild.

use crate::{Error, Row, Store, Tx, Value, tx::Session};

impl Tx {
    /// Hands over every row of a table, ordered by its columns from left to right, the same on every engine.
    pub async fn dump(&mut self, table: &'static str, row: impl FnMut(Row) -> Result<(), Error>) -> Result<(), Error> {
        let columns = self.columns(table).await?;
        let order: Vec<String> = (1..=columns.len()).map(|column| column.to_string()).collect();
        let sql = format!("SELECT {} FROM {} ORDER BY {}", columns.join(", "), quoted(table), order.join(", "));
        self.each(&sql, &[], row).await
    }

    /// Every row of a table in the order of `dump`.
    pub async fn rows(&mut self, table: &'static str) -> Result<Vec<Row>, Error> {
        let mut rows = Vec::new();
        self.dump(table, |row| {
            rows.push(row);
            Ok(())
        })
        .await?;
        Ok(rows)
    }

    /// Makes the table consist of exactly these rows and says how many they are.
    pub async fn replace(&mut self, table: &'static str, rows: impl IntoIterator<Item = Row>) -> Result<u64, Error> {
        self.clear(table).await?;
        let mut insert: Option<(std::sync::Arc<[Box<str>]>, String)> = None;
        let mut count = 0;
        for row in rows {
            let sql = match &insert {
                Some((columns, sql)) if *columns == row.columns => sql,
                _ => {
                    let names: Vec<String> = row.columns().map(quoted).collect();
                    let places: Vec<String> = (1..=names.len()).map(|place| format!("${place}")).collect();
                    let sql =
                        format!("INSERT INTO {} ({}) VALUES ({})", quoted(table), names.join(", "), places.join(", "));
                    &insert.insert((row.columns.clone(), sql)).1
                }
            };
            count += self.execute(sql, &row.values).await?;
        }
        Ok(count)
    }

    /// Makes tables consist of exactly the rows they have in `scratch`, a store of [`Store::scratch`] in which nothing is
    /// written any more; says how many those are. Tables that others refer to come first.
    pub async fn adopt(&mut self, scratch: &Store, tables: &[&'static str]) -> Result<u64, Error> {
        self.unbroken()?;
        let result = match &mut self.session {
            Session::Sqlite(session) => match scratch.file() {
                Some(file) => session.adopt(file, tables),
                None => Err(Error::Open { service: scratch.name(), detail: "a scratch store is a file".to_owned() }),
            },
            #[cfg(feature = "fleet")]
            Session::Postgres(session) => session.adopt(scratch, tables).await,
        };
        self.keep(result)
    }

    /// Removes every row of a table.
    pub async fn clear(&mut self, table: &'static str) -> Result<u64, Error> {
        self.execute(&format!("DELETE FROM {}", quoted(table)), &[]).await
    }

    /// The names of the columns, quoted, in the order they were created.
    async fn columns(&mut self, table: &'static str) -> Result<Vec<String>, Error> {
        let sql = match &self.session {
            Session::Sqlite(_) => "SELECT name FROM pragma_table_info($1) ORDER BY cid",
            #[cfg(feature = "fleet")]
            Session::Postgres(_) => {
                "SELECT column_name AS name FROM information_schema.columns \
                 WHERE table_schema = current_schema() AND table_name = $1 ORDER BY ordinal_position"
            }
        };
        let rows = self.query(sql, &[Value::from(table)]).await?;
        let names: Vec<String> =
            rows.iter().map(|row| row.get::<String>("name").map(|name| quoted(&name))).collect::<Result<_, _>>()?;
        if names.is_empty() {
            return self.keep(Err(Error::Mismatch {
                column: table.to_owned(),
                expected: "a table",
                found: "none of this name".to_owned(),
            }));
        }
        Ok(names)
    }
}

fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}
