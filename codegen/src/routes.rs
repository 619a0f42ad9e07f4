//! Path templates of `google.api.http`: parsed, and told apart.
//!
//! Two routes collide when one request could be meant by both with equal right: same verb, and the same sequence of
//! literals and wildcards once the names of variables are forgotten.

/// A parsed path template.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Template {
    segments: Vec<Segment>,
    verb: Option<String>,
    /// The field paths of its variables.
    pub(crate) variables: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Segment {
    Literal(String),
    One,
    Rest,
}

impl Template {
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let rest = text.strip_prefix('/').ok_or_else(|| format!("path {text:?} must begin with a slash"))?;
        let (path, verb) = match rest.rfind(':') {
            Some(colon) if !rest[colon..].contains(['}', '/']) => (&rest[..colon], Some(rest[colon + 1..].to_owned())),
            _ => (rest, None),
        };
        if verb.as_deref().is_some_and(|verb| !is_literal(verb)) {
            return Err(format!("path {text:?} has an empty or odd verb"));
        }
        let mut template = Self { segments: Vec::new(), verb, variables: Vec::new() };
        for part in split(path) {
            if let Some(variable) = part.strip_prefix('{') {
                let inner =
                    variable.strip_suffix('}').ok_or_else(|| format!("path {text:?} has an unclosed variable"))?;
                let (name, pattern) = inner.split_once('=').unwrap_or((inner, "*"));
                if name.is_empty() {
                    return Err(format!("path {text:?} has a variable without a name"));
                }
                if template.variables.iter().any(|known| known == name) {
                    return Err(format!("path {text:?} binds {name:?} twice"));
                }
                template.variables.push(name.to_owned());
                for segment in pattern.split('/') {
                    template.segments.push(plain(segment, text)?);
                }
            } else {
                template.segments.push(plain(part, text)?);
            }
        }
        let rest_inside = template.segments.iter().rev().skip(1).any(|segment| *segment == Segment::Rest);
        if rest_inside {
            return Err(format!("path {text:?} may have ** only as its last segment"));
        }
        Ok(template)
    }

    /// The template with the names of its variables forgotten: equal for routes that collide.
    pub(crate) fn shape(&self) -> String {
        let mut shape = String::new();
        for segment in &self.segments {
            shape.push('/');
            match segment {
                Segment::Literal(text) => shape.push_str(text),
                Segment::One => shape.push('*'),
                Segment::Rest => shape.push_str("**"),
            }
        }
        if let Some(verb) = &self.verb {
            shape.push(':');
            shape.push_str(verb);
        }
        shape
    }
}

fn plain(segment: &str, text: &str) -> Result<Segment, String> {
    match segment {
        "*" => Ok(Segment::One),
        "**" => Ok(Segment::Rest),
        literal if is_literal(literal) => Ok(Segment::Literal(literal.to_owned())),
        other => Err(format!("path {text:?} has the segment {other:?}, which is neither a literal nor a wildcard")),
    }
}

fn is_literal(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._~%".contains(&b))
}

/// Splits at slashes outside of braces.
fn split(path: &str) -> Vec<&str> {
    let (mut parts, mut start, mut depth) = (Vec::new(), 0, 0_u32);
    for (index, byte) in path.bytes().enumerate() {
        match byte {
            b'{' => depth += 1,
            b'}' => depth = depth.saturating_sub(1),
            b'/' if depth == 0 => {
                parts.push(&path[start..index]);
                start = index + 1;
            }
            _ => {}
        }
    }
    parts.push(&path[start..]);
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_template_is_read_with_its_variables_and_its_verb() {
        let template = Template::parse("/v1/{item.name=carts/*/items/*}:move").unwrap();
        assert_eq!(template.variables, ["item.name"]);
        assert_eq!(template.shape(), "/v1/carts/*/items/*:move");
    }

    #[test]
    fn routes_that_differ_in_names_only_have_one_shape() {
        let shape = |text| Template::parse(text).unwrap().shape();
        assert_eq!(shape("/v1/{name=orders/*}"), shape("/v1/orders/{order}"));
        assert_ne!(shape("/v1/{name=orders/*}"), shape("/v1/{name=orders/*}:cancel"));
        assert_ne!(shape("/v1/{name=orders/*}"), shape("/v1/{name=orders/**}"));
    }

    #[test]
    fn templates_that_are_none_are_refused() {
        for bad in [
            "v1/orders",
            "/v1//orders",
            "/v1/{name",
            "/v1/{=orders/*}",
            "/v1/**/a",
            "/v1/orders:",
            "/v1/{a}/{a}",
            "/v1/a b",
            "/",
        ] {
            assert!(Template::parse(bad).is_err(), "{bad}");
        }
    }
}
