//! The route table: a tree of segments, searched literal first, then `*`, then `**`, aware of the method, with backtracking.
//!
//! Invariants: two routes of one shape and one method cannot both be in the table; an empty segment matches nothing;
//! a search visits each node of the tree at most once a reading of the path, whatever the path.
//!
//! A verb that some route registers for exactly this path is a verb and never part of an id: `GET /orders/1:cancel` is then
//! the wrong method for `:cancel` (405), while `/users/user:1` reaches `/users/{id}`, because no route knows the verb `1`.

use std::{
    borrow::Cow,
    collections::{BTreeSet, HashMap, HashSet},
};

use http::Method;

use crate::{
    percent::{self, EscapeError},
    template::{Segment, Template},
};

/// A table of routes, each with a value.
#[derive(Debug)]
pub struct Router<T> {
    root: Node,
    verbs: HashSet<String>,
    routes: Vec<(Template, T)>,
    keeps_reserved: bool,
}

/// A route that was found, with what its variables captured, decoded, in the order of the template.
#[derive(Debug)]
pub struct Found<'a, T> {
    /// The value of the route.
    pub value: &'a T,
    /// One text a variable.
    pub captures: Vec<String>,
}

/// Why no route was found.
#[derive(Debug, PartialEq, Eq)]
pub enum Miss {
    /// No route has this path.
    NotFound,
    /// The path is known, with these methods (sorted).
    MethodNotAllowed(Vec<String>),
    /// The path cannot be decoded.
    BadPath(EscapeError),
}

/// Two routes that answer the same requests.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("two routes answer {method} {shape}")]
pub struct Collision {
    /// The method of both.
    pub method: String,
    /// The path of both, without variable names.
    pub shape: String,
}

#[derive(Debug, Default)]
struct Node {
    literals: HashMap<String, Node>,
    star: Option<Box<Node>>,
    /// Routes that end here.
    ends: Vec<End>,
    /// Routes whose `**` starts here.
    rests: Vec<End>,
}

#[derive(Debug)]
struct End {
    verb: Option<String>,
    /// `None` is any method.
    method: Option<Method>,
    route: usize,
}

impl<T> Default for Router<T> {
    fn default() -> Self {
        Router { root: Node::default(), verbs: HashSet::new(), routes: Vec::new(), keeps_reserved: false }
    }
}

impl<T> Router<T> {
    /// A variable of several segments keeps the escapes of all characters that RFC 6570 reserves, instead of `%2F` alone.
    #[must_use]
    pub fn keeping_reserved(self) -> Self {
        Router { keeps_reserved: true, ..self }
    }

    /// Adds a route; `None` is any method.
    pub fn insert(&mut self, method: Option<Method>, template: Template, value: T) -> Result<(), Collision> {
        let mut node = &mut self.root;
        let mut rest = false;
        for segment in &template.segments {
            match segment {
                Segment::Literal(text) => node = node.literals.entry(text.clone()).or_default(),
                Segment::Star => node = node.star.get_or_insert_default(),
                Segment::DoubleStar => rest = true,
            }
        }
        let ends = if rest { &mut node.rests } else { &mut node.ends };
        if ends.iter().any(|end| end.verb == template.verb && end.method == method) {
            return Err(Collision {
                method: method.map_or_else(|| "*".to_owned(), |method| method.to_string()),
                shape: template.shape(),
            });
        }
        ends.push(End { verb: template.verb.clone(), method, route: self.routes.len() });
        self.verbs.extend(template.verb.clone());
        self.routes.push((template, value));
        Ok(())
    }

    /// The same routes to other values.
    pub fn map<U>(self, mut value: impl FnMut(T) -> U) -> Router<U> {
        Router {
            root: self.root,
            verbs: self.verbs,
            routes: self.routes.into_iter().map(|(template, old)| (template, value(old))).collect(),
            keeps_reserved: self.keeps_reserved,
        }
    }

    /// Every template with its value, in the order they were added.
    pub fn routes(&self) -> impl Iterator<Item = (&Template, &T)> {
        self.routes.iter().map(|(template, value)| (template, value))
    }

    /// Finds the route of a request; `path` is as it was sent, without the query.
    pub fn find(&self, method: &Method, path: &str) -> Result<Found<'_, T>, Miss> {
        let raw: Vec<&str> = path.strip_prefix('/').ok_or(Miss::NotFound)?.split('/').collect();
        let decoded =
            raw.iter().map(|segment| percent::decode(segment)).collect::<Result<Vec<_>, _>>().map_err(Miss::BadPath)?;
        if raw.iter().any(|segment| segment.is_empty()) {
            return Err(Miss::NotFound);
        }
        if let Some((found, head)) = self.with_verb(method, &raw, &decoded)? {
            let mut raw = raw;
            if let Some(last) = raw.last_mut() {
                *last = head;
            }
            return self.found(found, &raw);
        }
        let mut search = Search { segments: &decoded, verb: None, method, allowed: BTreeSet::new() };
        match search.visit(&self.root, 0) {
            Some(route) => self.found(route, &raw),
            None => Err(search.miss()),
        }
    }

    /// Reads what follows the last `:` as a verb, if a route registers it for this path.
    fn with_verb<'p>(
        &self,
        method: &Method,
        raw: &[&'p str],
        decoded: &[Cow<'_, str>],
    ) -> Result<Option<(usize, &'p str)>, Miss> {
        let Some((head, verb)) = raw.last().and_then(|last| last.rsplit_once(':')) else {
            return Ok(None);
        };
        if head.is_empty() || !self.verbs.contains(verb) {
            return Ok(None);
        }
        let mut segments = decoded.to_vec();
        if let Some(last) = segments.last_mut() {
            *last = percent::decode(head).map_err(Miss::BadPath)?;
        }
        let mut search = Search { segments: &segments, verb: Some(verb), method, allowed: BTreeSet::new() };
        match search.visit(&self.root, 0) {
            Some(route) => Ok(Some((route, head))),
            None if search.allowed.is_empty() => Ok(None),
            None => Err(search.miss()),
        }
    }

    fn found(&self, route: usize, raw: &[&str]) -> Result<Found<'_, T>, Miss> {
        let (template, value) = &self.routes[route];
        let mut captures = Vec::with_capacity(template.variables.len());
        for variable in &template.variables {
            let open_end =
                variable.end == template.segments.len() && template.segments.last() == Some(&Segment::DoubleStar);
            let captured = if open_end { &raw[variable.start..] } else { &raw[variable.start..variable.end] };
            let text = captured.join("/");
            let text = match (variable.multi, self.keeps_reserved) {
                (false, _) => percent::decode(&text),
                (true, false) => percent::decode_keeping_slash(&text),
                (true, true) => percent::decode_keeping_reserved(&text),
            };
            captures.push(text.map_err(Miss::BadPath)?.into_owned());
        }
        Ok(Found { value, captures })
    }
}

struct Search<'a> {
    segments: &'a [Cow<'a, str>],
    verb: Option<&'a str>,
    method: &'a Method,
    /// Methods of the routes that have this path.
    allowed: BTreeSet<String>,
}

impl Search<'_> {
    fn visit(&mut self, node: &Node, depth: usize) -> Option<usize> {
        if let Some(segment) = self.segments.get(depth) {
            if let Some(next) = node.literals.get(segment.as_ref())
                && let Some(route) = self.visit(next, depth + 1)
            {
                return Some(route);
            }
            if let Some(next) = &node.star
                && let Some(route) = self.visit(next, depth + 1)
            {
                return Some(route);
            }
        } else if let Some(route) = self.pick(&node.ends) {
            return Some(route);
        }
        self.pick(&node.rests)
    }

    fn pick(&mut self, ends: &[End]) -> Option<usize> {
        let mut any = None;
        for end in ends.iter().filter(|end| end.verb.as_deref() == self.verb) {
            match &end.method {
                Some(method) if method == self.method || (self.method == Method::HEAD && method == Method::GET) => {
                    return Some(end.route);
                }
                Some(method) => {
                    self.allowed.insert(method.to_string());
                    if method == Method::GET {
                        self.allowed.insert(Method::HEAD.to_string());
                    }
                }
                None => any = Some(end.route),
            }
        }
        any
    }

    fn miss(self) -> Miss {
        if self.allowed.is_empty() {
            Miss::NotFound
        } else {
            Miss::MethodNotAllowed(self.allowed.into_iter().collect())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn router(routes: &[(&str, &'static str)]) -> Router<&'static str> {
        let mut router = Router::default();
        for (method, template) in routes {
            router.insert(Some(method.parse().unwrap()), Template::parse(template).unwrap(), *template).unwrap();
        }
        router
    }

    fn find<'a>(
        router: &'a Router<&'static str>,
        method: &str,
        path: &str,
    ) -> Result<(&'static str, Vec<String>), Miss> {
        router.find(&method.parse().unwrap(), path).map(|found: Found<'a, _>| (*found.value, found.captures))
    }

    #[test]
    fn a_literal_beats_a_star_and_a_star_beats_two() {
        let router =
            router(&[("GET", "/v1/**"), ("GET", "/v1/{id}"), ("GET", "/v1/special"), ("GET", "/v1/{name=files/**}")]);
        assert_eq!(find(&router, "GET", "/v1/special").unwrap().0, "/v1/special");
        assert_eq!(find(&router, "GET", "/v1/other").unwrap(), ("/v1/{id}", vec!["other".to_owned()]));
        assert_eq!(find(&router, "GET", "/v1/a/b/c").unwrap().0, "/v1/**");
        assert_eq!(find(&router, "GET", "/v1/files/a/b").unwrap().1, ["files/a/b"]);
    }

    #[test]
    fn the_order_of_registration_decides_nothing() {
        let forth = router(&[("GET", "/v1/special"), ("GET", "/v1/{id}"), ("GET", "/v1/**")]);
        let back = router(&[("GET", "/v1/**"), ("GET", "/v1/{id}"), ("GET", "/v1/special")]);
        for path in ["/v1/special", "/v1/x", "/v1/x/y"] {
            assert_eq!(find(&forth, "GET", path).unwrap().0, find(&back, "GET", path).unwrap().0, "{path}");
        }
    }

    #[test]
    fn a_dead_end_is_left_again() {
        let router = router(&[("GET", "/a/b/c"), ("GET", "/a/{x}/d"), ("GET", "/{y}/b/e"), ("GET", "/a/**")]);
        assert_eq!(find(&router, "GET", "/a/b/d").unwrap().0, "/a/{x}/d");
        assert_eq!(find(&router, "GET", "/a/b/e").unwrap().0, "/a/**");
        assert_eq!(find(&router, "GET", "/z/b/e").unwrap().0, "/{y}/b/e");
        assert_eq!(find(&router, "GET", "/a").unwrap().0, "/a/**");
    }

    #[test]
    fn the_method_takes_part_in_the_search() {
        let router = router(&[("GET", "/v1/special"), ("POST", "/v1/{id}")]);
        assert_eq!(find(&router, "POST", "/v1/special").unwrap(), ("/v1/{id}", vec!["special".to_owned()]));
    }

    #[test]
    fn a_known_path_with_another_method_names_the_allowed_ones() {
        let router = router(&[("GET", "/v1/{id}"), ("PATCH", "/v1/{thing}"), ("POST", "/v1/{id}:cancel")]);
        let allowed =
            |methods: &[&str]| Miss::MethodNotAllowed(methods.iter().map(|method| (*method).to_owned()).collect());
        assert_eq!(find(&router, "DELETE", "/v1/a").unwrap_err(), allowed(&["GET", "HEAD", "PATCH"]));
        assert_eq!(find(&router, "GET", "/v1/a:cancel").unwrap_err(), allowed(&["POST"]));
        assert_eq!(find(&router, "GET", "/v2/a").unwrap_err(), Miss::NotFound);
    }

    #[test]
    fn head_works_where_get_does() {
        let router = router(&[("GET", "/v1/{id}"), ("POST", "/v1/{id}:run")]);
        assert_eq!(find(&router, "HEAD", "/v1/a").unwrap().0, "/v1/{id}");
        assert!(matches!(find(&router, "HEAD", "/v1/a:run").unwrap_err(), Miss::MethodNotAllowed(_)));
    }

    #[test]
    fn a_verb_is_what_follows_the_last_colon_if_it_is_registered_for_the_path() {
        let router = router(&[
            ("GET", "/users/{id}"),
            ("POST", "/users/{id}:cancel"),
            ("GET", "/users:search"),
            ("POST", "/orders/{id}"),
        ]);
        assert_eq!(find(&router, "GET", "/users/user:1").unwrap(), ("/users/{id}", vec!["user:1".to_owned()]));
        assert_eq!(find(&router, "POST", "/users/a:b:cancel").unwrap(), ("/users/{id}:cancel", vec!["a:b".to_owned()]));
        assert_eq!(find(&router, "GET", "/users/a:cancel:1").unwrap().1, ["a:cancel:1"]);
        assert_eq!(find(&router, "GET", "/users:search").unwrap().0, "/users:search");
        assert_eq!(
            find(&router, "POST", "/orders/a:cancel").unwrap(),
            ("/orders/{id}", vec!["a:cancel".to_owned()]),
            "registered elsewhere only"
        );
        assert_eq!(
            find(&router, "GET", "/users/a%3Acancel").unwrap().1,
            ["a:cancel"],
            "an escaped colon starts no verb"
        );
    }

    #[test]
    fn segments_are_split_before_they_are_decoded() {
        let router = router(&[("GET", "/v1/{id}"), ("GET", "/v2/{name=products/*}")]);
        assert_eq!(find(&router, "GET", "/v1/a%2Fb%20c").unwrap().1, ["a/b c"]);
        assert_eq!(find(&router, "GET", "/v2/products/a%2Fb%20c").unwrap().1, ["products/a%2Fb c"]);
        let keeping = self::router(&[("GET", "/v2/{name=products/*}")]).keeping_reserved();
        assert_eq!(find(&keeping, "GET", "/v2/products/a%3Ab%20c").unwrap().1, ["products/a%3Ab c"]);
        assert_eq!(find(&router, "GET", "/v2/products%2Fa").unwrap_err(), Miss::NotFound);
        assert_eq!(find(&router, "GET", "/v2/%70roducts/a").unwrap().0, "/v2/{name=products/*}");
    }

    #[test]
    fn an_empty_segment_matches_nothing() {
        let router = router(&[("GET", "/v1/{id}"), ("GET", "/v1/a/**"), ("GET", "/v1")]);
        for path in ["/v1/", "/v1//", "//v1", "/", "/v1/a/", "/v1/a//b", "/v1/:x"] {
            let found = find(&router, "GET", path);
            assert!(found.is_err() || path == "/v1/:x", "{path} {found:?}");
        }
    }

    #[test]
    fn bad_escapes_are_an_error_of_their_own() {
        let router = router(&[("GET", "/v1/{id}")]);
        assert_eq!(find(&router, "GET", "/v1/%zz").unwrap_err(), Miss::BadPath(EscapeError::Escape));
        assert_eq!(find(&router, "GET", "/v1/%ff").unwrap_err(), Miss::BadPath(EscapeError::Utf8));
    }

    #[test]
    fn two_routes_of_one_shape_and_method_are_refused() {
        let mut router = router(&[("GET", "/v1/{name=products/*}")]);
        let again = router.insert(Some(Method::GET), Template::parse("/v1/products/{id}").unwrap(), "again");
        assert_eq!(again.unwrap_err().to_string(), "two routes answer GET /v1/products/*");
        router.insert(Some(Method::PUT), Template::parse("/v1/products/{id}").unwrap(), "other method").unwrap();
    }
}
