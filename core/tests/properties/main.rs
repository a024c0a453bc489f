//! Property tests: the domain against plain models that share no code with it.

mod draft;
mod json;
