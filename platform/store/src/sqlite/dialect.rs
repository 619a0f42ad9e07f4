//! Turns the migrations' one SQL text into SQLite's: typed columns that are really checked.
//!
//! Plain SQLite stores a text in a BIGINT column without a word. So every ordinary table is made STRICT,
//! and the common types become the ones STRICT knows. Nothing but CREATE TABLE and ALTER TABLE is touched.
//! What only SQLite understands stands in a comment, as in `/*sqlite WITHOUT ROWID */`.

/// Begins a comment that holds words for SQLite alone.
const ASIDE: &str = "/*sqlite ";

/// The statements of a migration, each as SQLite shall run it.
pub(crate) fn statements(sql: &str) -> Vec<String> {
    split(sql).into_iter().map(|statement| if is_table(&statement) { strict(&statement) } else { statement }).collect()
}

fn is_table(statement: &str) -> bool {
    let mut words =
        Tokens { rest: statement }.filter(|token| !token.is_space()).map(|token| token.text().to_ascii_uppercase());
    match words.next().as_deref() {
        Some("CREATE" | "ALTER") => words.next().as_deref() == Some("TABLE"),
        Some(_) | None => false,
    }
}

fn strict(statement: &str) -> String {
    let mut text = String::with_capacity(statement.len() + 8);
    let (mut created, mut without_rowid, mut is_strict) = (false, false, false);
    for token in (Tokens { rest: statement }) {
        let Token::Word(word) = token else {
            text.push_str(token.text());
            continue;
        };
        match word.to_ascii_uppercase().as_str() {
            // INT and not INTEGER: INTEGER PRIMARY KEY would be SQLite's own row number.
            "BIGINT" | "BOOLEAN" => text.push_str("INT"),
            "BYTEA" => text.push_str("BLOB"),
            upper => {
                created |= upper == "CREATE";
                without_rowid |= upper == "ROWID";
                is_strict |= upper == "STRICT";
                text.push_str(word);
            }
        }
    }
    if created && !is_strict {
        text.truncate(text.trim_end().len());
        text.push_str(if without_rowid { ", STRICT" } else { " STRICT" });
    }
    text
}

/// The statements between semicolons that stand outside quotes, comments and trigger bodies.
fn split(sql: &str) -> Vec<String> {
    let mut statements = Vec::new();
    let mut current = String::new();
    let mut trigger = false;
    let mut depth = 0_u32;
    for token in (Tokens { rest: sql }) {
        if let Token::Word(word) = token {
            match word.to_ascii_uppercase().as_str() {
                "TRIGGER" => trigger = true,
                "BEGIN" | "CASE" if trigger => depth += 1,
                "END" if trigger => depth = depth.saturating_sub(1),
                _ => {}
            }
        }
        match token {
            Token::Semicolon if depth == 0 => {
                statements.push(std::mem::take(&mut current));
                trigger = false;
            }
            // A comment ends a line, and may hold the only line end between two words.
            Token::Comment(text) => {
                current.push(' ');
                current.push_str(text.strip_prefix(ASIDE).and_then(|text| text.strip_suffix("*/")).unwrap_or(""));
            }
            Token::Word(_) | Token::Quoted(_) | Token::Space(_) | Token::Other(_) | Token::Semicolon => {
                current.push_str(token.text())
            }
        }
    }
    statements.push(current);
    statements.retain(|statement| !statement.trim().is_empty());
    statements
}

#[derive(Clone, Copy)]
enum Token<'a> {
    Word(&'a str),
    Quoted(&'a str),
    Comment(&'a str),
    Space(&'a str),
    Semicolon,
    Other(&'a str),
}

impl<'a> Token<'a> {
    fn text(self) -> &'a str {
        match self {
            Self::Word(text) | Self::Quoted(text) | Self::Comment(text) | Self::Space(text) | Self::Other(text) => text,
            Self::Semicolon => ";",
        }
    }

    fn is_space(self) -> bool {
        matches!(self, Self::Space(_) | Self::Comment(_))
    }
}

struct Tokens<'a> {
    rest: &'a str,
}

impl<'a> Iterator for Tokens<'a> {
    type Item = Token<'a>;

    fn next(&mut self) -> Option<Token<'a>> {
        let first = self.rest.chars().next()?;
        let run = |accept: fn(char) -> bool| self.rest.find(|c| !accept(c)).unwrap_or(self.rest.len());
        let after = |end: &str, from: usize| {
            self.rest.get(from..).and_then(|rest| rest.find(end)).map_or(self.rest.len(), |at| from + at + end.len())
        };
        let (length, make): (usize, fn(&'a str) -> Token<'a>) = if first.is_whitespace() {
            (run(char::is_whitespace), Token::Space)
        } else if first.is_ascii_alphabetic() || first == '_' {
            (run(|c| c.is_ascii_alphanumeric() || c == '_'), Token::Word)
        } else if first == '\'' || first == '"' {
            // A doubled quote inside is read as two quoted texts side by side, which comes to the same.
            (after(if first == '"' { "\"" } else { "'" }, 1), Token::Quoted)
        } else if self.rest.starts_with("--") {
            (after("\n", 2), Token::Comment)
        } else if self.rest.starts_with("/*") {
            (after("*/", 2), Token::Comment)
        } else if first == ';' {
            (1, |_| Token::Semicolon)
        } else {
            (first.len_utf8(), Token::Other)
        };
        let (text, rest) = self.rest.split_at(length);
        self.rest = rest;
        Some(make(text))
    }
}

#[cfg(test)]
mod tests {
    use super::statements;

    #[test]
    fn tables_become_strict_and_keep_what_is_quoted() {
        let sql = "-- a comment; with a semicolon\nCREATE TABLE a (id TEXT NOT NULL PRIMARY KEY, n BIGINT NOT NULL DEFAULT 0,\n\
                   b BYTEA, \"BIGINT\" BOOLEAN NOT NULL CHECK (id <> 'BIGINT; x''y'));\nCREATE INDEX a_n ON a (n); ";
        let found = statements(sql);
        assert_eq!(found.len(), 2, "{found:?}");
        let table = found.first().map(String::as_str).unwrap_or_default();
        assert!(table.contains("n INT NOT NULL") && table.contains("b BLOB") && table.ends_with(") STRICT"), "{table}");
        assert!(table.contains("\"BIGINT\" INT NOT NULL") && table.contains("'BIGINT; x''y'"), "{table}");
        assert_eq!(found.get(1).map(|index| index.trim()), Some("CREATE INDEX a_n ON a (n)"));
    }

    #[test]
    fn virtual_tables_and_triggers_pass_as_they_are() {
        let sql = "CREATE VIRTUAL TABLE f USING fts5(title);CREATE TRIGGER t AFTER INSERT ON a BEGIN DELETE FROM b; \
                   UPDATE c SET n = CASE WHEN 1 THEN 2 END; END;CREATE TABLE d (n BIGINT, PRIMARY KEY (n)) WITHOUT ROWID;\
                   ALTER TABLE d ADD COLUMN m BIGINT";
        let found = statements(sql);
        assert_eq!(found.len(), 4, "{found:?}");
        assert!(found[0].ends_with("fts5(title)"));
        assert!(found[1].trim_end().ends_with("END; END"));
        assert!(found[2].ends_with("WITHOUT ROWID, STRICT"));
        assert!(found[3].ends_with("m INT"));
    }

    #[test]
    fn what_is_said_to_sqlite_alone_is_heard_and_other_comments_are_not() {
        let found =
            statements("CREATE TABLE a (id TEXT PRIMARY KEY) /*sqlite WITHOUT ROWID */; SELECT 1 /* sqlite LIMIT 2 */");
        assert!(found[0].ends_with("WITHOUT ROWID, STRICT"), "{found:?}");
        assert!(!found[1].contains("LIMIT"), "{found:?}");
    }
}
