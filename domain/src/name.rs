//! Names that people give to things.

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// `^[a-z0-9-]{1,63}$`: safe in a path, a URL, a host name and a libvirt domain name alike, so no
/// user's text ever has to be escaped anywhere.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name(std::sync::Arc<str>);

/// Why a text is no [`Name`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}: use 1 to 63 of a-z, 0-9 and '-'", problem(.0))]
pub struct InvalidName(String);

fn problem(text: &str) -> String {
    if text.is_empty() { "no name is given".to_owned() } else { format!("{text:?} is not a name") }
}

impl Name {
    /// Checks `text`.
    ///
    /// # Errors
    /// [`InvalidName`] unless it matches `^[a-z0-9-]{1,63}$`.
    pub fn new(text: &str) -> Result<Name, InvalidName> {
        let fits = (1..=63).contains(&text.len())
            && text.bytes().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'-'));
        // A refused text may be long or hostile: the message carries only its beginning.
        if fits { Ok(Name(text.into())) } else { Err(InvalidName(text.chars().take(64).collect())) }
    }

    /// The project every cluster has from its first entry.
    #[must_use]
    pub fn default_project() -> Name {
        Name("default".into())
    }

    /// The name that sorts before all others.
    pub(crate) fn first() -> Name {
        Name("-".into())
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Display for Name {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(&self.0)
    }
}

impl std::str::FromStr for Name {
    type Err = InvalidName;
    fn from_str(text: &str) -> Result<Name, InvalidName> {
        Name::new(text)
    }
}

impl Serialize for Name {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Name {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Name, D::Error> {
        // Read where it lies: there are several names in every entry of the log.
        struct Text;

        impl de::Visitor<'_> for Text {
            type Value = Name;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a name")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Name, E> {
                Name::new(text).map_err(E::custom)
            }
        }

        deserializer.deserialize_str(Text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_safe_alphabet_passes() {
        for good in ["a", "web-1", "0", &"x".repeat(63)] {
            assert_eq!(Name::new(good).unwrap().as_str(), good);
        }
        for bad in ["", "Web", "a_b", "../etc", "a/b", "ä", "a b", "a\0", &"x".repeat(64)] {
            assert!(Name::new(bad).is_err(), "{bad:?}");
        }
    }
}
