//! How often strangers may try something that asks for a secret.
//!
//! Each address has its own limit, and all together have one. A try that its own address's limit refuses costs the
//! others nothing, so one address cannot shut out the rest. What is remembered is bounded by the limit for all.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;
use tug_api::serve::network;
use tug_api::{ApiError, Code};

/// In this time …
const PERIOD: Duration = Duration::from_secs(60);
/// … so many tries may come from one address …
const EACH: u32 = 10;
/// … and so many from all.
const ALL: u32 = 100;

/// Counts tries.
#[derive(Debug, Default)]
pub(super) struct Gate(Mutex<Tries>);

#[derive(Debug, Default)]
struct Tries {
    all: Bucket,
    each: BTreeMap<IpAddr, Bucket>,
}

/// A bucket that empties evenly, over [`PERIOD`] when it is full; `None`: it is empty.
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
            ApiError::new(Code::TooMany, message)
                .hint(format!("{EACH} a minute are answered to each address, {ALL} to all"))
                .retry_after(wait)
        })
    }

    /// The same at `now`; otherwise says after what time it may be made.
    fn admit(&self, address: IpAddr, now: Instant) -> Result<(), Duration> {
        let mut tries = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let address = network(address);
        tries.each.retain(|_, bucket| bucket.0.is_some_and(|empty| empty > now));
        let own = tries.each.get(&address).copied().unwrap_or_default();
        let (own, all) = (own.with_one_more(EACH, now)?, tries.all.with_one_more(ALL, now)?);
        tries.each.insert(address, own);
        tries.all = all;
        Ok(())
    }
}

// === impl Bucket ===

impl Bucket {
    /// The bucket after one more try, of which `most` fill it; or how long that would be too many.
    fn with_one_more(self, most: u32, now: Instant) -> Result<Self, Duration> {
        let empty = self.0.unwrap_or(now).max(now) + PERIOD / most;
        match empty.saturating_duration_since(now).checked_sub(PERIOD) {
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
        assert!((0..10).all(|_| gate.admit(v4(1), now + 3 * PERIOD).is_ok()));
    }

    #[test]
    fn all_together_have_a_limit_and_what_is_remembered_is_bounded() {
        let (gate, now) = (Gate::default(), Instant::now());
        let admitted = (0..250).filter(|last| gate.admit(v4(*last), now).is_ok()).count();
        assert_eq!(admitted, 100);
        assert_eq!(gate.admit(v4(251), now), Err(Duration::from_millis(600)));
        assert_eq!(gate.0.lock().unwrap().each.len(), 100);
        gate.admit(v4(251), now + PERIOD).unwrap();
        assert_eq!(gate.0.lock().unwrap().each.len(), 1, "the others are forgotten");
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
}
