//! Tables taken over from a scratch store: by SQLite itself, file to file.
//!
//! The scratch file is attached to the writer's connection inside its transaction, so the rows never
//! pass through this program and the change is one with everything else the transaction does. SQLite
//! copies a table that has the same shape in both files as it is stored, and its indices with it,
//! in their order; that is why the live table is emptied first. The file is let go behind the
//! transaction, because SQLite does not part with one that is being read.

use std::path::Path;

use super::Session;
use crate::{Error, Value};

impl Session {
    /// Makes the tables consist of the rows they have in the scratch store `file`; says how many.
    pub(crate) fn adopt(&self, file: &Path, tables: &[&'static str]) -> Result<u64, Error> {
        // Bodies of one transaction may each bring a scratch store.
        let scratch = name(self.attached.get());
        self.execute(&format!("ATTACH DATABASE $1 AS {scratch}"), &[file.display().to_string().into()])?;
        self.attached.set(self.attached.get() + 1);
        // A full-text table refers to the rows of an ordinary one by their row ids.
        let mut refers = false;
        for table in tables {
            refers |= self.kind_of(table)?.is_virtual;
        }
        for table in tables.iter().rev() {
            self.execute(&format!("DELETE FROM main.{table}"), &[])?;
        }
        let mut rows = 0;
        for table in tables {
            let kind = self.kind_of(table)?;
            let columns = self.columns_of(&scratch, table)?;
            // A newer release has added columns that this one does not fill.
            let grown = columns.len() < self.columns_of("main", table)?.len();
            let columns = columns.join(", ");
            let insert = if refers && !kind.without_row_id {
                format!("INSERT INTO main.{table} (rowid, {columns}) SELECT rowid, {columns} FROM {scratch}.{table}")
            } else if grown {
                format!("INSERT INTO main.{table} ({columns}) SELECT {columns} FROM {scratch}.{table}")
            } else {
                // No other words: only so does SQLite copy what is stored, instead of one row after the other.
                format!("INSERT INTO main.{table} SELECT * FROM {scratch}.{table}")
            };
            rows += self.execute(&insert, &[])?;
        }
        Ok(rows)
    }

    /// Lets go of the scratch stores that the transaction before this used.
    pub(crate) fn let_go(&self) {
        while let Some(last) = self.attached.get().checked_sub(1) {
            if let Err(error) = self.execute(&format!("DETACH DATABASE {}", name(last)), &[]) {
                // It is tried again behind the next transaction.
                tracing::warn!(service = self.service, %error, "a scratch store is still attached");
                return;
            }
            self.attached.set(last);
        }
    }

    fn kind_of(&self, table: &str) -> Result<Kind, Error> {
        let mut kind = None;
        let sql = "SELECT type = 'virtual' AS virtual, wr FROM pragma_table_list WHERE schema = 'main' AND name = $1";
        self.query(sql, &[table.into()], &mut |row| {
            kind = Some(Kind { is_virtual: row.get("virtual")?, without_row_id: row.get("wr")? });
            Ok(())
        })?;
        kind.ok_or_else(|| Error::Mismatch {
            column: table.to_owned(),
            expected: "a table",
            found: "none of this name".to_owned(),
        })
    }

    fn columns_of(&self, schema: &str, table: &str) -> Result<Vec<String>, Error> {
        let mut columns = Vec::new();
        let sql = "SELECT name FROM pragma_table_info($1, $2) ORDER BY cid";
        self.query(sql, &[Value::from(table), Value::from(schema)], &mut |row| {
            columns.push(format!("\"{}\"", row.get::<String>("name")?));
            Ok(())
        })?;
        Ok(columns)
    }
}

fn name(attached: u32) -> String {
    format!("scratch_{attached}")
}

struct Kind {
    is_virtual: bool,
    without_row_id: bool,
}
