//! What is behind an error.

use std::error::Error;

/// The first error of type `T`: `error` itself, or one behind it.
#[must_use]
pub fn find_cause<'a, T: Error + 'static>(error: &'a (dyn Error + 'static)) -> Option<&'a T> {
    std::iter::successors(Some(error), |&error| error.source()).find_map(|error| error.downcast_ref())
}

/// An error with all that is behind it, in one line. Many libraries repeat what is behind an error in its own text: that is
/// said once.
#[must_use]
pub fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    for cause in std::iter::successors(error.source(), |&cause| cause.source()) {
        let cause = cause.to_string();
        if !text.ends_with(&cause) {
            text.push_str(": ");
            text.push_str(&cause);
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("the log failed")]
    struct Plain(#[source] io::Error);

    #[derive(Debug, thiserror::Error)]
    #[error("opening: {0}")]
    struct Repeating(#[source] Plain);

    #[test]
    fn a_cause_is_found_however_deep() {
        let error = Repeating(Plain(io::ErrorKind::StorageFull.into()));
        assert!(find_cause::<Repeating>(&error).is_some());
        let found: &io::Error = find_cause(&error).unwrap();
        assert_eq!(found.kind(), io::ErrorKind::StorageFull);
        assert!(find_cause::<std::fmt::Error>(&error).is_none());
    }

    #[test]
    fn what_is_behind_is_said_once() {
        let error = Repeating(Plain(io::Error::other("no such disk")));
        assert_eq!(chain(&error), "opening: the log failed: no such disk");
    }
}
