//! Hashes as text: how keys are named and how tokens are kept.

use ring::digest::{Context, SHA256, digest};
use tug_model::Digest;

/// Computes the digest of what comes in pieces.
#[derive(Clone)]
pub struct Hasher(Context);

// === impl Hasher ===

impl Hasher {
    /// Of nothing yet.
    pub fn new() -> Self {
        Self(Context::new(&SHA256))
    }

    /// Of `bytes` as well.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// The digest of all that came.
    pub fn finish(self) -> Digest {
        named(&hex(self.0.finish().as_ref()))
    }
}

impl Default for Hasher {
    fn default() -> Self {
        Self::new()
    }
}

impl std::fmt::Debug for Hasher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Hasher")
    }
}

// === functions ===

/// The digest of `bytes`.
pub fn digest_of(bytes: &[u8]) -> Digest {
    named(&sha256(bytes))
}

fn named(hex: &str) -> Digest {
    Digest::parse(&format!("sha256:{hex}")).expect("a SHA-256 has 64 hexadecimal digits")
}

/// The SHA-256 of `bytes` in hexadecimal digits.
pub fn sha256(bytes: &[u8]) -> String {
    hex(digest(&SHA256, bytes).as_ref())
}

/// Whether two hashes are the same, in a time that says nothing about where they differ.
pub fn same(one: &str, other: &str) -> bool {
    let (one, other) = (one.as_bytes(), other.as_bytes());
    one.len() == other.len() && one.iter().zip(other).fold(0, |seen, (a, b)| seen | (a ^ b)) == 0
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |text, byte| text + &format!("{byte:02x}"))
}
