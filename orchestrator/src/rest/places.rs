//! Places for what lasts: watches, logs and exec conversations. All together have so many, and one token may take half of
//! them, so that whoever else comes finds room.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tug_api::{ApiError, Code};

use super::authorise::Who;

/// So many are open at once.
const MOST: usize = 64;
/// So many of them are one token's.
const MOST_OF_ONE: usize = 32;

/// All of them.
#[derive(Debug)]
pub(super) struct Places {
    free: Arc<Semaphore>,
    shares: Shares,
}

/// How many each token has, by its id.
type Shares = Arc<Mutex<BTreeMap<String, usize>>>;

/// One of them.
#[derive(Debug)]
pub(super) struct Taken {
    _permit: OwnedSemaphorePermit,
    _share: Option<Share>,
}

/// A token's part in it.
#[derive(Debug)]
struct Share {
    token: String,
    shares: Shares,
}

// === impl Places ===

impl Places {
    pub(super) fn new() -> Self {
        Self { free: Arc::new(Semaphore::new(MOST)), shares: Shares::default() }
    }

    /// One for `who`.
    pub(super) fn take(&self, who: &Who) -> Result<Taken, ApiError> {
        let share = match who {
            Who::Token { token, .. } => Some(self.share(&token.id)?),
            Who::Local | Who::Node { .. } | Who::Nobody => None,
        };
        let permit = Arc::clone(&self.free).try_acquire_owned();
        let permit = permit.map_err(|_| too_many(&format!("{MOST} watches, logs and exec conversations")))?;
        Ok(Taken { _permit: permit, _share: share })
    }

    fn share(&self, token: &str) -> Result<Share, ApiError> {
        let mut counts = lock(&self.shares);
        let count = counts.entry(token.to_owned()).or_default();
        if *count == MOST_OF_ONE {
            let what = format!("{MOST_OF_ONE} watches, logs and exec conversations of this token");
            return Err(too_many(&what));
        }
        *count += 1;
        Ok(Share { token: token.to_owned(), shares: Arc::clone(&self.shares) })
    }
}

// === impl Share ===

impl Drop for Share {
    fn drop(&mut self) {
        let mut counts = lock(&self.shares);
        if let Some(count) = counts.get_mut(&self.token) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.token);
            }
        }
    }
}

fn lock(shares: &Shares) -> MutexGuard<'_, BTreeMap<String, usize>> {
    shares.lock().unwrap_or_else(PoisonError::into_inner)
}

fn too_many(what: &str) -> ApiError {
    ApiError::new(Code::TooMany, format!("{what} are open already")).hint("end one of them, then try again")
}

#[cfg(test)]
mod tests {
    use tug_model::Timestamp;
    use tug_model::token::{AccessRole, Grant, Token};

    use super::*;

    fn holder(id: &str) -> Who {
        let grant = Grant::Access { role: AccessRole::Viewer, projects: Vec::new() };
        let (id, name, hash) = (id.to_owned(), String::new(), String::new());
        let token =
            Token { id, name, hash, grant, created_at: Timestamp(0), expires_at: None, used_at: None };
        Who::Token { token: Arc::new(token), role: AccessRole::Viewer, projects: Vec::new() }
    }

    #[test]
    fn one_token_leaves_room_for_others_and_all_together_have_a_limit() {
        let places = Places::new();
        let many = |who: &Who| (0..1_000).filter_map(|_| places.take(who).ok()).collect::<Vec<_>>();
        let mut first = many(&holder("a"));
        assert_eq!(first.len(), MOST_OF_ONE);
        let refused = places.take(&holder("a")).unwrap_err();
        assert!(refused.code == Code::TooMany && refused.message.contains("of this token"), "{refused:?}");
        first.pop();
        first.push(places.take(&holder("a")).unwrap());
        let others = many(&Who::Local);
        assert_eq!(others.len(), MOST - MOST_OF_ONE);
        assert_eq!(places.take(&holder("b")).unwrap_err().code, Code::TooMany);
        drop((first, others));
        assert_eq!(many(&holder("b")).len(), MOST_OF_ONE);
        assert!(lock(&places.shares).is_empty(), "nothing is remembered of who has gone");
    }
}
