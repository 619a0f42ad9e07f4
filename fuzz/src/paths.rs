//! Templates of paths, and paths that may or may not fit them.

use std::sync::LazyLock;

use http::Method;
use transcode::Schema;
use transcode::percent;
use transcode::route::Router;
use transcode::rule::{self, Target};
use transcode::template::Template;

use crate::schema;

static LIBRARY: LazyLock<Router<Target>> = LazyLock::new(|| {
    let pool = schema::pool("library", "library/v1/library.proto");
    rule::router(&Schema::new(&pool), &pool).expect("no routes")
});

/// The input is a path, or templates a line each and then a path. A path that is found in a router of one template is found
/// beside others too, and what is captured is never longer than the path.
pub fn path(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    let (templates, path) = text.rsplit_once('\n').unwrap_or(("", text));
    for decode in
        [percent::decode, percent::decode_keeping_slash, percent::decode_keeping_reserved, percent::decode_query]
    {
        if let Ok(decoded) = decode(path) {
            assert!(decoded.len() <= path.len(), "{path} has grown: {decoded}");
        }
    }
    for method in [Method::GET, Method::POST, Method::PUT] {
        found(&LIBRARY, &method, path);
    }
    let mut all = Router::default();
    let mut alone = false;
    for text in templates.lines().take(16) {
        let Ok(template) = Template::parse(text) else { continue };
        assert!(Template::parse(&template.shape()).is_ok(), "{text} has a shape that is none: {}", template.shape());
        let mut one = Router::default();
        one.insert(Some(Method::GET), template.clone(), ()).expect("nothing to collide with");
        if all.insert(Some(Method::GET), template, ()).is_ok() {
            alone |= found(&one, &Method::GET, path);
        }
    }
    assert_eq!(found(&all, &Method::GET, path), alone, "{path} among {templates}");
}

fn found<T>(router: &Router<T>, method: &Method, path: &str) -> bool {
    match router.find(method, path) {
        Ok(found) => {
            let captured: usize = found.captures.iter().map(|value| value.len()).sum();
            // Nested variables see the same segments again.
            assert!(captured <= path.len() * found.captures.len().max(1), "{path} has grown");
            true
        }
        Err(_) => false,
    }
}
