//! Answers to what never became a request: written below HTTP, but as complete as any other.

use hub_core::error::{Code, code};

use crate::problem::{PROBLEM_JSON, Problem};

/// A whole HTTP/1.1 answer with a problem, after which the connection ends.
pub(super) fn answer(problem: &Problem) -> Vec<u8> {
    let body = serde_json::to_vec(&problem.body(None, None)).unwrap_or_default();
    let status = problem.status();
    let head = format!(
        "HTTP/1.1 {} {}\r\ncontent-type: {PROBLEM_JSON}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
        status.as_u16(),
        status.canonical_reason().unwrap_or("Error"),
        body.len()
    );
    [head.into_bytes(), body].concat()
}

/// What takes the place of the bare answers that the HTTP library gives to headers it cannot read; `None` for all other
/// output. Ours all name the node.
pub(super) fn in_place_of(output: &[u8]) -> Option<Vec<u8>> {
    const KNOWN: [(&[u8], Code, &str); 3] = [
        (b"HTTP/1.1 400 ", code::BAD_REQUEST, "the request's header is not well-formed HTTP/1.1"),
        (b"HTTP/1.1 414 ", code::BAD_REQUEST, "the request's target is too long"),
        (b"HTTP/1.1 431 ", code::BAD_REQUEST, "the request's header is too large"),
    ];
    if !output.starts_with(b"HTTP/1.1 4") || output.windows(8).any(|window| window == b"hub-node") {
        return None;
    }
    let (_, code, detail) = KNOWN.into_iter().find(|(start, ..)| output.starts_with(start))?;
    Some(answer(&Problem::new(code, detail)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_foreign_refusals_are_replaced() {
        let bare = b"HTTP/1.1 431 Request Header Fields Too Large\r\ncontent-length: 0\r\n\r\n";
        let text = String::from_utf8(in_place_of(bare).unwrap()).unwrap();
        assert!(text.starts_with("HTTP/1.1 400 Bad Request\r\n") && text.contains("HUB-1002"), "{text}");
        assert_eq!(in_place_of(b"HTTP/1.1 400 Bad Request\r\nhub-node: 1\r\n\r\n"), None);
        assert_eq!(in_place_of(b"HTTP/1.1 200 OK\r\n\r\n"), None);
    }
}
