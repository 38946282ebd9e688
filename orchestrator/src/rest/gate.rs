//! How often somebody may ask: strangers for something that takes a secret, and the holder of a token for anything.
//!
//! Each address of strangers has its own limit, and all together have one. A try that its own address's limit refuses costs
//! the others nothing, so one address cannot shut out the rest. What is remembered is bounded by the limit for all. Each
//! token has a limit of its own, so what runs wild with one of them leaves the control plane to the others.

use std::borrow::Borrow;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;
use tug_api::serve::network;
use tug_api::{ApiError, Code};

/// So many tries may come from one address …
const EACH: Pace = Pace { most: 10, within: Duration::from_secs(60) };
/// … and so many from all.
const ALL: Pace = Pace { most: 100, within: Duration::from_secs(60) };
/// So many requests may come with one token.
const TOKEN: Pace = Pace { most: 100, within: Duration::from_secs(2) };

/// Counts tries, and requests.
#[derive(Debug, Default)]
pub(super) struct Gate {
    tries: Mutex<Tries>,
    requests: Mutex<Buckets<String>>,
}

#[derive(Debug, Default)]
struct Tries {
    all: Bucket,
    each: Buckets<IpAddr>,
}

/// So many at once, and as many again when this time has passed, or some of them when a part of it has.
#[derive(Debug, Clone, Copy)]
struct Pace {
    most: u32,
    within: Duration,
}

/// Buckets by whose they are; those that are empty are forgotten.
#[derive(Debug)]
struct Buckets<K>(BTreeMap<K, Bucket>);

/// A bucket that empties evenly; `None`: it is empty.
#[derive(Debug, Default, Clone, Copy)]
struct Bucket(Option<Instant>);

// === impl Gate ===

impl Gate {
    /// Counts a try from `address`, or refuses it. Whoever comes without one may open the control plane's socket, and is
    /// not counted.
    pub(super) fn enter(&self, address: Option<IpAddr>) -> Result<(), ApiError> {
        let Some(address) = address else { return Ok(()) };
        self.admit(address, Instant::now()).map_err(|wait| {
            let message = "too many tries from this address, or from all together";
            let (each, all) = (EACH.most, ALL.most);
            ApiError::new(Code::TooMany, message)
                .hint(format!("{each} a minute are answered to each address, {all} to all"))
                .retry_after(wait)
        })
    }

    /// The same at `now`; otherwise says after what time it may be made.
    fn admit(&self, address: IpAddr, now: Instant) -> Result<(), Duration> {
        let mut tries = self.tries.lock().unwrap_or_else(PoisonError::into_inner);
        let address = network(address);
        let own = tries.each.with_one_more(&address, EACH, now)?;
        tries.all = tries.all.with_one_more(ALL, now)?;
        tries.each.0.insert(address, own);
        Ok(())
    }

    /// Counts a request that came with the token of this id, or refuses it.
    pub(super) fn ask(&self, token: &str) -> Result<(), ApiError> {
        self.listen(token, Instant::now()).map_err(|wait| {
            let a_second = u64::from(TOKEN.most) / TOKEN.within.as_secs();
            let message = "too many requests came with this token";
            ApiError::new(Code::TooMany, message)
                .hint(format!(
                    "wait a second: {a_second} a second are answered to each token, {} at once",
                    TOKEN.most
                ))
                .retry_after(wait)
        })
    }

    /// The same at `now`; otherwise says after what time it may come.
    fn listen(&self, token: &str, now: Instant) -> Result<(), Duration> {
        let mut requests = self.requests.lock().unwrap_or_else(PoisonError::into_inner);
        let own = requests.with_one_more(token, TOKEN, now)?;
        requests.0.insert(token.to_owned(), own);
        Ok(())
    }
}

// === impl Buckets ===

impl<K: Ord> Buckets<K> {
    /// The bucket of `whose` after one more; or how long that would be too many.
    fn with_one_more<Q: Ord + ?Sized>(
        &mut self,
        whose: &Q,
        pace: Pace,
        now: Instant,
    ) -> Result<Bucket, Duration>
    where
        K: Borrow<Q>,
    {
        self.0.retain(|_, bucket| bucket.0.is_some_and(|empty| empty > now));
        self.0.get(whose).copied().unwrap_or_default().with_one_more(pace, now)
    }
}

impl<K> Default for Buckets<K> {
    fn default() -> Self {
        Self(BTreeMap::new())
    }
}

// === impl Bucket ===

impl Bucket {
    /// The bucket after one more, of which `most` fill it; or how long that would be too many.
    fn with_one_more(self, Pace { most, within }: Pace, now: Instant) -> Result<Self, Duration> {
        let empty = self.0.unwrap_or(now).max(now) + within / most;
        match empty.saturating_duration_since(now).checked_sub(within) {
            None | Some(Duration::ZERO) => Ok(Self(Some(empty))),
            Some(too_early) => Err(too_early),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn v4(last: u8) -> IpAddr {
        IpAddr::from([192, 0, 2, last])
    }

    #[test]
    fn one_address_has_its_limit_and_shuts_out_nobody_else() {
        let (gate, now) = (Gate::default(), Instant::now());
        let admitted = (0..1000).filter(|_| gate.admit(v4(1), now).is_ok()).count();
        assert_eq!(admitted, 10);
        assert_eq!(gate.admit(v4(1), now), Err(Duration::from_secs(6)), "one leaves every six seconds");
        assert_eq!(gate.admit(v4(2), now), Ok(()));
        assert_eq!(gate.admit(v4(1), now + Duration::from_secs(6)), Ok(()));
        assert!(gate.admit(v4(1), now + Duration::from_secs(6)).is_err());
        assert!((0..10).all(|_| gate.admit(v4(1), now + 3 * EACH.within).is_ok()));
    }

    #[test]
    fn all_together_have_a_limit_and_what_is_remembered_is_bounded() {
        let (gate, now) = (Gate::default(), Instant::now());
        let admitted = (0..250).filter(|last| gate.admit(v4(*last), now).is_ok()).count();
        assert_eq!(admitted, 100);
        assert_eq!(gate.admit(v4(251), now), Err(Duration::from_millis(600)));
        assert_eq!(gate.tries.lock().unwrap().each.0.len(), 100);
        gate.admit(v4(251), now + ALL.within).unwrap();
        assert_eq!(gate.tries.lock().unwrap().each.0.len(), 1, "the others are forgotten");
    }

    #[test]
    fn an_ipv6_network_is_one_address_and_so_is_an_ipv4_address_in_either_notation() {
        let (gate, now) = (Gate::default(), Instant::now());
        let v6 = |last: u16| IpAddr::from([0x2001, 0xdb8, 0, 1, 0, 0, 0, last]);
        assert_eq!((0..100).filter(|last| gate.admit(v6(*last), now).is_ok()).count(), 10);
        for _ in 0..10 {
            gate.admit(v4(9), now).unwrap();
        }
        let mapped: IpAddr = "::ffff:192.0.2.9".parse().unwrap();
        assert!(gate.admit(mapped, now).is_err());
    }

    #[test]
    fn a_token_has_its_pace_and_leaves_the_others_theirs() {
        let (gate, now) = (Gate::default(), Instant::now());
        let admitted = |token, now| (0..1000).filter(|_| gate.listen(token, now).is_ok()).count();
        assert_eq!(admitted("a", now), 100);
        assert_eq!(gate.listen("a", now), Err(Duration::from_millis(20)));
        assert_eq!(gate.ask("b").unwrap(), ());
        assert_eq!(admitted("a", now + Duration::from_secs(1)), 50);
        assert_eq!(admitted("a", now + Duration::from_secs(60)), 100, "what was not used does not add up");
        assert_eq!(gate.requests.lock().unwrap().0.len(), 1, "who rests is forgotten");
    }
}
