//! The fleet's gateway, asked over plain HTTP/1.1: enough to know that the shop answers.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

/// Who is the first operator.
pub(crate) const OPERATOR: &str = "operator@stoa.local";

const CONNECT: Duration = Duration::from_secs(2);
const ANSWER: Duration = Duration::from_secs(15);
/// No answer we ask for is larger.
const LARGEST: u64 = 1024 * 1024;

/// The gateway.
pub(crate) struct Door {
    address: SocketAddr,
}

impl Door {
    pub(crate) fn new(address: SocketAddr) -> Self {
        Self { address }
    }

    /// An access token of the operator.
    pub(crate) fn sign_in(&self, password: &str) -> Result<String> {
        let body = serde_json::json!({ "email": OPERATOR, "password": password }).to_string();
        let answer = self.ask("POST", "/v1/sessions:signIn", None, &body)?;
        find(&answer, "accessToken").context("the answer to signing in has no token")
    }

    /// Whether a service answers the operator, which needs its store.
    pub(crate) fn service_answers(&self, service: &str, token: &str) -> Result<()> {
        self.ask("GET", &format!("/v1/services/{service}/consumers"), Some(token), "").map(drop)
    }

    fn ask(&self, method: &str, path: &str, token: Option<&str>, body: &str) -> Result<Value> {
        let mut stream = TcpStream::connect_timeout(&self.address, CONNECT)?;
        stream.set_read_timeout(Some(ANSWER))?;
        stream.set_write_timeout(Some(ANSWER))?;
        let authorization = token.map_or_else(String::new, |token| format!("Authorization: Bearer {token}\r\n"));
        write!(
            stream,
            "{method} {path} HTTP/1.1\r\nHost: {}\r\n{authorization}Content-Type: application/json\r\n\
             Content-Length: {}\r\nConnection: close\r\n\r\n{body}",
            self.address,
            body.len()
        )?;
        let mut answer = Vec::new();
        stream.take(LARGEST).read_to_end(&mut answer)?;
        let answer = String::from_utf8_lossy(&answer);
        let (head, rest) = answer.split_once("\r\n\r\n").context("no answer")?;
        let status = head.split(' ').nth(1).unwrap_or_default();
        ensure!(status == "200", "{path} answered {status}");
        let chunked = head.to_ascii_lowercase().contains("transfer-encoding: chunked");
        let body = if chunked { joined(rest) } else { rest.to_owned() };
        serde_json::from_str(&body).with_context(|| format!("{path} answered no JSON"))
    }
}

/// The text of a body that was sent in chunks.
fn joined(mut rest: &str) -> String {
    let mut body = String::new();
    while let Some((size, more)) = rest.split_once("\r\n") {
        let size = usize::from_str_radix(size.split(';').next().unwrap_or_default().trim(), 16).unwrap_or(0);
        let Some(chunk) = more.get(..size).filter(|chunk| !chunk.is_empty()) else { break };
        body.push_str(chunk);
        rest = more.get(size + 2..).unwrap_or_default();
    }
    body
}

/// The first text under this name, however deep.
fn find(value: &Value, name: &str) -> Option<String> {
    match value {
        Value::Object(fields) => match fields.get(name) {
            Some(Value::String(text)) => Some(text.clone()),
            _ => fields.values().find_map(|field| find(field, name)),
        },
        Value::Array(items) => items.iter().find_map(|item| find(item, name)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_are_joined() {
        assert_eq!(joined("4\r\n{\"a\"\r\n3;x=y\r\n:1}\r\n0\r\n\r\n"), "{\"a\":1}");
        assert_eq!(joined("ff\r\nshort"), "");
    }

    #[test]
    fn a_token_is_found_where_it_lies() {
        let answer = serde_json::json!({ "session": { "name": "s", "accessToken": "t" } });
        assert_eq!(find(&answer, "accessToken").as_deref(), Some("t"));
        assert_eq!(find(&answer, "refreshToken"), None);
    }
}
