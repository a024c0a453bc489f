//! The table of settings: one entry declares the field, its type, its default and its explanation, so that reading,
//! `config default` and `config show` cannot disagree.

use std::collections::BTreeMap;

use super::Effective;
use super::error::{Problem, Source};
use super::value::{Form, Raw, Setting};

/// One setting.
#[derive(Clone, Copy, Debug)]
pub struct Key {
    /// Its section.
    pub section: &'static str,
    /// Its name in the section.
    pub name: &'static str,
    /// What it does; one string a line.
    pub doc: &'static [&'static str],
    /// Its default, as it would be written in the environment; empty for none.
    pub default: &'static str,
    /// Its short name in the environment, if it has one.
    pub env: Option<&'static str>,
    /// How it is written in the file.
    pub form: Form,
    /// Never shown; may be given by `NAME_FILE`.
    pub secret: bool,
}

impl Key {
    /// `section.key`.
    #[must_use]
    pub fn path(&self) -> String {
        format!("{}.{}", self.section, self.name)
    }
}

/// Reads typed values out of the merged layers and gathers what is wrong.
pub(super) struct Reader<'a> {
    values: &'a BTreeMap<String, Effective>,
    problems: &'a mut Vec<Problem>,
}

impl<'a> Reader<'a> {
    pub(super) const fn new(values: &'a BTreeMap<String, Effective>, problems: &'a mut Vec<Problem>) -> Self {
        Self { values, problems }
    }

    /// The value of one setting; `None` when it is wrong, which was noted.
    pub(super) fn take<T: Setting>(&mut self, section: &str, name: &str, default: &str) -> Option<T> {
        let path = format!("{section}.{name}");
        let (parsed, source) = match self.values.get(&path) {
            Some(found) => (T::parse(&found.raw), found.source.clone()),
            None => (T::parse(&Raw::Text(default.to_owned())), Source::Default),
        };
        parsed.map_err(|detail| self.problems.push(Problem::new(path, source, detail))).ok()
    }
}

/// Declares the sections of the configuration.
macro_rules! settings {
    ($(
        $(#[doc = $section_doc:literal])*
        $section:ident: $Section:ident {
            $($(#[doc = $doc:literal])* $key:ident: $type:ty = $default:literal $(as $env:literal)?,)*
        }
    )*) => {
        $(
            $(#[doc = $section_doc])*
            #[derive(Clone, Debug)]
            pub struct $Section {
                $($(#[doc = $doc])* pub $key: $type,)*
            }

            impl $Section {
                fn read(reader: &mut $crate::config::schema::Reader<'_>) -> Option<Self> {
                    $(let $key = reader.take::<$type>(stringify!($section), stringify!($key), $default);)*
                    Some(Self { $($key: $key?,)* })
                }
            }
        )*

        /// All settings of a node.
        #[derive(Clone, Debug)]
        pub struct Config {
            $($(#[doc = $section_doc])* pub $section: $Section,)*
        }

        impl Config {
            /// Reads every section, also after a mistake, so that all mistakes are found.
            pub(super) fn read(reader: &mut $crate::config::schema::Reader<'_>) -> Option<Self> {
                $(let $section = $Section::read(reader);)*
                Some(Self { $($section: $section?,)* })
            }
        }

        /// The sections in order, each with its explanation.
        pub const SECTIONS: &[(&str, &[&str])] = &[
            $((stringify!($section), &[$($section_doc),*]),)*
        ];

        /// Every setting, section by section.
        pub const KEYS: &[$crate::config::Key] = &[
            $($($crate::config::Key {
                section: stringify!($section),
                name: stringify!($key),
                doc: &[$($doc),*],
                default: $default,
                env: settings!(@env $($env)?),
                form: <$type as $crate::config::Setting>::FORM,
                secret: <$type as $crate::config::Setting>::SECRET,
            },)*)*
        ];
    };
    (@env $env:literal) => { Some($env) };
    (@env) => { None };
}

pub(super) use settings;
