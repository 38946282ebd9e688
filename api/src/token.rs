//! The text of a token: what proves who somebody is who has no certificate.
//!
//! `tug_join_ID.AUTHORITY.SECRET.CHECK`, or `tug_access_…`. AUTHORITY is the SHA-256 of the public key of the cluster's
//! authority, so that whoever has the token knows whom to trust; SECRET is 32 random bytes; both in base64url. CHECK is
//! the CRC-32 of everything before it: a typing error is found without asking anybody.

use std::fmt;
use std::str::FromStr;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::digest::{hex, sha256};

/// A token, whole. It shows only its id.
#[derive(Clone, PartialEq, Eq)]
pub struct TokenText {
    kind: TokenKind,
    id: String,
    authority: [u8; 32],
    secret: [u8; 32],
}

/// What a token is for, as its first letters say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenKind {
    /// Joining as a node.
    Join,
    /// Using the API.
    Access,
}

/// Why a text is no token. The text itself is not repeated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadToken {
    /// It does not begin as tokens do.
    #[error("this is no token: one begins with `tug_join_` or `tug_access_`")]
    Kind,
    /// It has not the parts of a token.
    #[error("this token is not whole: copy all of it")]
    Shape,
    /// Its letters are not those that were given out.
    #[error("this token has a typing error: its check digits do not fit")]
    Check,
}

/// The length of an id.
const ID: usize = 8;

// === impl TokenText ===

impl TokenText {
    /// A new token for a cluster whose authority's key is `authority` (SHA-256 in hexadecimal digits); `random` are
    /// bytes that nobody can guess. `None`: that is no such hash.
    pub fn new(kind: TokenKind, authority: &str, random: [u8; 36]) -> Option<Self> {
        let (id, secret) = random.split_at(4);
        Some(Self { kind, id: hex(id), authority: from_hex(authority)?, secret: secret.try_into().ok()? })
    }

    /// What it is for.
    pub fn kind(&self) -> TokenKind {
        self.kind
    }

    /// Its id, which is no secret.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The SHA-256 of the key of the authority to trust, in hexadecimal digits.
    pub fn authority(&self) -> String {
        hex(&self.authority)
    }

    /// The SHA-256 of its secret, in hexadecimal digits: what is kept of it.
    pub fn hash(&self) -> String {
        sha256(&self.secret)
    }

    /// The token itself: to be shown once to whoever asked for it, or sent to the server it is for.
    pub fn expose(&self) -> String {
        let prefix = match self.kind {
            TokenKind::Join => "tug_join_",
            TokenKind::Access => "tug_access_",
        };
        let [authority, secret] = [self.authority, self.secret].map(|it| URL_SAFE_NO_PAD.encode(it));
        let text = format!("{prefix}{}.{authority}.{secret}", self.id);
        let check = crc32fast::hash(text.as_bytes());
        format!("{text}.{check:08x}")
    }
}

impl FromStr for TokenText {
    type Err = BadToken;

    fn from_str(text: &str) -> Result<Self, BadToken> {
        let text = text.trim();
        let (kind, rest) = if let Some(rest) = text.strip_prefix("tug_join_") {
            (TokenKind::Join, rest)
        } else if let Some(rest) = text.strip_prefix("tug_access_") {
            (TokenKind::Access, rest)
        } else {
            return Err(BadToken::Kind);
        };
        let (checked, check) = text.rsplit_once('.').ok_or(BadToken::Shape)?;
        let [id, authority, secret, _] = *rest.splitn(5, '.').collect::<Vec<_>>() else {
            return Err(BadToken::Shape);
        };
        if check.len() != 8 || id.len() != ID {
            return Err(BadToken::Shape);
        }
        if format!("{:08x}", crc32fast::hash(checked.as_bytes())) != check {
            return Err(BadToken::Check);
        }
        let bytes = |part: &str| URL_SAFE_NO_PAD.decode(part).ok()?.try_into().ok();
        let whole = |part: &str| bytes(part).ok_or(BadToken::Shape);
        Ok(Self { kind, id: id.to_owned(), authority: whole(authority)?, secret: whole(secret)? })
    }
}

impl fmt::Debug for TokenText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TokenText({})", self.id)
    }
}

fn from_hex(text: &str) -> Option<[u8; 32]> {
    let pairs = text.as_bytes().chunks(2).map(|pair| {
        let pair = std::str::from_utf8(pair).ok()?;
        u8::from_str_radix(pair, 16).ok()
    });
    pairs.collect::<Option<Vec<u8>>>()?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token() -> TokenText {
        let random: Vec<u8> = (0..36).collect();
        TokenText::new(TokenKind::Join, &"ab".repeat(32), random.try_into().unwrap()).unwrap()
    }

    #[test]
    fn a_token_comes_back_from_its_text_and_shows_only_its_id() {
        let token = token();
        let text = token.expose();
        assert_eq!(text.parse::<TokenText>().as_ref(), Ok(&token));
        assert_eq!((token.id(), token.authority()), ("00010203", "ab".repeat(32)));
        assert_eq!(format!("{token:?}"), "TokenText(00010203)");
        assert_eq!(token.hash().len(), 64);
    }

    #[test]
    fn typing_errors_are_found_wherever_they_are() {
        let text = token().expose();
        for at in 0..text.len() {
            let mut wrong = text.clone().into_bytes();
            wrong[at] = if wrong[at] == b'x' { b'y' } else { b'x' };
            assert!(String::from_utf8(wrong).unwrap().parse::<TokenText>().is_err(), "at {at}");
            assert!(text[..at].parse::<TokenText>().is_err(), "cut at {at}");
        }
        assert_eq!("".parse::<TokenText>(), Err(BadToken::Kind));
        assert_eq!("x".repeat(1 << 20).parse::<TokenText>(), Err(BadToken::Kind));
    }
}
