//! Reading JSON strictly: a key that stands twice is an error, and every error says where it is.
//!
//! serde lets the last of two equal keys of a map win, so the text is walked once before it is read as a type. What is
//! no JSON at all is found there too; what is left for the second pass are values that are not what the type asks for.

use std::collections::BTreeSet;
use std::fmt;

use serde::de::{DeserializeOwned, DeserializeSeed, Error as _, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use tug_api::{ApiError, Code};

/// Reads `text` as a `T`.
pub(super) fn read<T: DeserializeOwned>(text: &[u8]) -> Result<T, ApiError> {
    serde_json::from_slice::<Walk>(text).map_err(|error| syntax(&error))?;
    let mut reader = serde_json::Deserializer::from_slice(text);
    serde_path_to_error::deserialize(&mut reader).map_err(|error| {
        // A key is the caller's text and may hold anything, a terminal's commands too.
        let path: String = error.path().to_string().chars().flat_map(char::escape_debug).collect();
        let invalid = ApiError::new(Code::Invalid, error.inner().to_string());
        if path == "." { invalid } else { invalid.field(path) }
    })
}

fn syntax(error: &serde_json::Error) -> ApiError {
    ApiError::new(Code::JsonSyntax, format!("the body is not JSON that can be read: {error}"))
        .hint("the position is that of the request's body")
}

/// A JSON value that is looked at and forgotten.
struct Walk;

impl<'de> Deserialize<'de> for Walk {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Self)
    }
}

impl<'de> Visitor<'de> for Walk {
    type Value = Self;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_bool<E>(self, _: bool) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_str<E>(self, _: &str) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_unit<E>(self) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Self, A::Error> {
        while items.next_element::<Self>()?.is_some() {}
        Ok(self)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Self, A::Error> {
        let mut seen = BTreeSet::new();
        while let Some(key) = entries.next_key_seed(Key)? {
            if let Some(key) = seen.replace(key) {
                return Err(A::Error::custom(format_args!(
                    "the key `{}` stands twice",
                    key.escape_default()
                )));
            }
            entries.next_value::<Self>()?;
        }
        Ok(self)
    }
}

struct Key;

impl<'de> DeserializeSeed<'de> for Key {
    type Value = String;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<String, D::Error> {
        String::deserialize(deserializer)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use tug_api::user::ScaleRequest;

    use super::*;

    fn refused(text: &str) -> ApiError {
        read::<ScaleRequest>(text.as_bytes()).unwrap_err()
    }

    #[test]
    fn what_is_well_formed_is_read() {
        let request: ScaleRequest = read(br#" {"replicas": {"web": 3}} "#).unwrap();
        assert_eq!(request.replicas.into_values().collect::<Vec<_>>(), [3]);
        assert!(read::<BTreeMap<String, Option<f64>>>(br#"{"a":1.5,"b":null}"#).is_ok());
    }

    #[test]
    fn what_is_no_json_is_a_syntax_error_with_its_position() {
        let deep = "[".repeat(100_000);
        for (text, position) in [
            ("", "line 1 column 0"),
            ("{", "line 1 column 1"),
            ("{\n  \"replicas\": NaN}", "line 2 column 15"),
            ("{\"replicas\": {\"web\": 1e999}}", "line 1 column 26"),
            ("{\"replicas\": {\"web\": 3}} x", "line 1 column 26"),
            ("{\"replicas\": {\"web\": 3,\n\"web\": 4}}", "line 2 column 5"),
            ("{\"replicas\": {}, \"replicas\": {}}", "line 1 column 27"),
            ("\"\\ud800\"", "line 1 column 8"),
            ("\u{feff}{}", "line 1 column 1"),
            (&deep, "line 1 column 128"),
        ] {
            let error = refused(text);
            assert_eq!(error.code, Code::JsonSyntax, "{text:.40}");
            assert!(error.message.contains(position), "{text:.40}: {}", error.message);
        }
        assert!(refused("{\"replicas\": {\"web\": 3, \"web\": 4}}").message.contains("`web` stands twice"));
        assert!(read::<ScaleRequest>(b"\"\xff\"").is_err());
    }

    #[test]
    fn what_is_of_the_wrong_type_is_named_by_its_path() {
        for (text, field, message) in [
            ("{\"replicas\": {\"web\": \"many\"}}", "replicas.web", "expected u32"),
            ("{\"replicas\": {\"web\": -1}}", "replicas.web", "expected u32"),
            ("{\"replicas\": {\"web\": 1.5}}", "replicas.web", "expected u32"),
            ("{\"replicas\": {\"web\": 99999999999}}", "replicas.web", "expected u32"),
            ("{\"replicas\": {\"a b\": 1}}", "replicas.a b", "not a valid service name"),
            ("{\"replicsa\": {}}", "replicsa", "unknown field `replicsa`"),
        ] {
            let error = refused(text);
            assert_eq!(
                (error.code, error.field.as_deref()),
                (Code::Invalid, Some(field)),
                "{text}: {error:?}"
            );
            assert!(error.message.contains(message), "{text}: {}", error.message);
        }
        assert_eq!(refused("[]").code, Code::Invalid);
    }
}
