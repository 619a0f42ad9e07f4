//! Path templates of `google.api.http`, parsed: segments, variables and the verb.
//!
//! Invariant: a parsed template has at least one segment, `**` stands only in the last one, and no variable is inside another.

/// One segment of a template.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Segment {
    /// Matches exactly this text, after percent-decoding.
    Literal(String),
    /// Matches one segment that is not empty.
    Star,
    /// Matches what is left, also nothing.
    DoubleStar,
}

/// A variable and the segments it captures.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Variable {
    /// The field path as written, for example `product.name`.
    pub path: String,
    /// The first captured segment.
    pub start: usize,
    /// One past the last captured segment; a `**` captures the rest.
    pub end: usize,
    /// True unless the pattern is a lone `*`: decides how the value is percent-decoded.
    pub multi: bool,
}

/// A parsed template.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template {
    /// The segments, left to right.
    pub segments: Vec<Segment>,
    /// The custom verb after the last `:`.
    pub verb: Option<String>,
    /// The variables in the order written.
    pub variables: Vec<Variable>,
}

/// Why a template cannot be used; the text names the place.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("path template {template:?}: {reason}")]
pub struct TemplateError {
    /// The template as written.
    pub template: String,
    /// What is wrong with it.
    pub reason: String,
}

impl Template {
    /// Parses a template; the grammar is the one documented in `google/api/http.proto`.
    pub fn parse(text: &str) -> Result<Self, TemplateError> {
        let mut parser =
            Parser { rest: text, template: Template { segments: Vec::new(), verb: None, variables: Vec::new() } };
        parser.template().map_err(|reason| TemplateError { template: text.to_owned(), reason })?;
        Ok(parser.template)
    }

    /// The template without the names of its variables: two routes with one shape and one method collide.
    pub fn shape(&self) -> String {
        let mut shape = String::new();
        for segment in &self.segments {
            shape.push('/');
            shape.push_str(match segment {
                Segment::Literal(text) => text,
                Segment::Star => "*",
                Segment::DoubleStar => "**",
            });
        }
        if let Some(verb) = &self.verb {
            shape.push(':');
            shape.push_str(verb);
        }
        shape
    }
}

struct Parser<'a> {
    rest: &'a str,
    template: Template,
}

impl Parser<'_> {
    fn template(&mut self) -> Result<(), String> {
        self.take('/')?;
        self.segments(false)?;
        if self.rest.starts_with(':') {
            self.take(':')?;
            let verb = self.word("/{}*:=")?;
            self.template.verb = Some(verb);
        }
        if !self.rest.is_empty() {
            return Err(format!("unexpected {:?}", self.rest));
        }
        let last = self.template.segments.len() - 1;
        if self.template.segments[..last].contains(&Segment::DoubleStar) {
            return Err("`**` must be the last segment".to_owned());
        }
        let mut names: Vec<&str> = self.template.variables.iter().map(|variable| variable.path.as_str()).collect();
        names.sort_unstable();
        if let Some(pair) = names.windows(2).find(|pair| pair[0] == pair[1]) {
            return Err(format!("variable `{}` is bound twice", pair[0]));
        }
        Ok(())
    }

    fn segments(&mut self, inside_variable: bool) -> Result<(), String> {
        loop {
            self.segment(inside_variable)?;
            if !self.rest.starts_with('/') {
                return Ok(());
            }
            self.take('/')?;
        }
    }

    fn segment(&mut self, inside_variable: bool) -> Result<(), String> {
        if let Some(rest) = self.rest.strip_prefix("**") {
            self.rest = rest;
            self.template.segments.push(Segment::DoubleStar);
        } else if let Some(rest) = self.rest.strip_prefix('*') {
            self.rest = rest;
            self.template.segments.push(Segment::Star);
        } else if self.rest.starts_with('{') {
            if inside_variable {
                return Err("a variable inside a variable".to_owned());
            }
            self.variable()?;
        } else {
            let literal = self.word("/{}*:=")?;
            self.template.segments.push(Segment::Literal(literal));
        }
        Ok(())
    }

    fn variable(&mut self) -> Result<(), String> {
        self.take('{')?;
        let path = self.word("/{}*:=")?;
        if path.split('.').any(|part| part.is_empty() || !part.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')) {
            return Err(format!("`{path}` is not a field path"));
        }
        let start = self.template.segments.len();
        if self.rest.starts_with('=') {
            self.take('=')?;
            self.segments(true)?;
        } else {
            self.template.segments.push(Segment::Star);
        }
        self.take('}')?;
        let end = self.template.segments.len();
        let multi = !matches!(self.template.segments[start..end], [Segment::Star]);
        self.template.variables.push(Variable { path, start, end, multi });
        Ok(())
    }

    fn take(&mut self, expected: char) -> Result<(), String> {
        match self.rest.strip_prefix(expected) {
            Some(rest) => {
                self.rest = rest;
                Ok(())
            }
            None => Err(format!("expected `{expected}` before {:?}", self.rest)),
        }
    }

    fn word(&mut self, stops: &str) -> Result<String, String> {
        let end = self.rest.find(|c| stops.contains(c)).unwrap_or(self.rest.len());
        if end == 0 {
            return Err(format!("an empty segment or name before {:?}", self.rest));
        }
        let (word, rest) = self.rest.split_at(end);
        self.rest = rest;
        Ok(word.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_know_their_segments_and_the_verb_is_apart() {
        let template = Template::parse("/v1/{name=users/*/sessions/*}:revoke").unwrap();
        assert_eq!(template.shape(), "/v1/users/*/sessions/*:revoke");
        assert_eq!(template.variables, [Variable { path: "name".into(), start: 1, end: 5, multi: true }]);
        assert_eq!(template.verb.as_deref(), Some("revoke"));
        let template = Template::parse("/v1/webhooks/{provider}").unwrap();
        assert_eq!(template.variables, [Variable { path: "provider".into(), start: 2, end: 3, multi: false }]);
    }

    #[test]
    fn templates_that_break_the_grammar_are_refused() {
        for bad in [
            "",
            "v1",
            "/",
            "/v1//a",
            "/v1/{a",
            "/v1/{a={b}}",
            "/v1/**/a",
            "/v1/{a}/{a}",
            "/v1/a:b:c",
            "/v1/{.a}",
            "/v1/{a=}",
            "/v1/a/",
            "/v1/a:",
        ] {
            assert!(Template::parse(bad).is_err(), "{bad} was accepted");
        }
    }
}
