//! How everything stands, computed once for all who ask.
//!
//! The control loop publishes what it saw and decided, but it may be a step behind the store: an accepted project must
//! be there for the next request. So the world is put together anew from the newest state and reports, beside the
//! reasons that the loop gave last.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::watch;
use tug_model::ProjectName;
use tug_model::status::ProjectStatus;

use crate::plan::{Observed, View, World, status};
use crate::store::{State, Store};
use crate::world::world;

/// How every project stands, by name.
pub(super) type Statuses = BTreeMap<ProjectName, Arc<ProjectStatus>>;

/// Reads how everything stands.
#[derive(Debug)]
pub(super) struct Stand {
    store: Store,
    observed: watch::Receiver<Arc<Observed>>,
    view: watch::Receiver<Arc<View>>,
    cached: Mutex<Option<Cached>>,
}

/// Wakes when something may stand otherwise.
#[derive(Debug)]
pub(super) struct Changes {
    state: watch::Receiver<Arc<State>>,
    observed: watch::Receiver<Arc<Observed>>,
    view: watch::Receiver<Arc<View>>,
}

#[derive(Debug)]
struct Cached {
    state: Arc<State>,
    observed: Arc<Observed>,
    published: Arc<View>,
    view: Arc<View>,
    statuses: Option<Arc<Statuses>>,
}

// === impl Stand ===

impl Stand {
    pub(super) fn new(
        store: Store,
        observed: watch::Receiver<Arc<Observed>>,
        view: watch::Receiver<Arc<View>>,
    ) -> Self {
        Self { store, observed, view, cached: Mutex::default() }
    }

    /// The newest world, with what was decided last.
    pub(super) fn view(&self) -> Arc<View> {
        self.with(|cached| Arc::clone(&cached.view))
    }

    /// How every project stands in that.
    pub(super) fn statuses(&self) -> Arc<Statuses> {
        self.with(|cached| {
            let view = &cached.view;
            let compute = || {
                let all = status::all(view).into_iter();
                Arc::new(all.map(|status| (status.name.clone(), Arc::new(status))).collect())
            };
            Arc::clone(cached.statuses.get_or_insert_with(compute))
        })
    }

    /// Whether the control loop is there.
    pub(super) fn is_decided(&self) -> bool {
        self.view.has_changed().is_ok()
    }

    /// Wakes from now on.
    pub(super) fn changes(&self) -> Changes {
        Changes { state: self.store.watch(), observed: self.observed.clone(), view: self.view.clone() }
    }

    fn with<T>(&self, read: impl FnOnce(&mut Cached) -> T) -> T {
        let mut cached = self.cached.lock().unwrap_or_else(PoisonError::into_inner);
        let state = self.store.snapshot();
        let observed = Arc::clone(&self.observed.borrow());
        let published = Arc::clone(&self.view.borrow());
        let fresh = cached.take().filter(|cached| {
            Arc::ptr_eq(&cached.state, &state)
                && Arc::ptr_eq(&cached.observed, &observed)
                && Arc::ptr_eq(&cached.published, &published)
        });
        let fresh = fresh.unwrap_or_else(|| {
            let View { world: looked_at, plan, at } = &*published;
            let (since, timing) = (looked_at.since, looked_at.timing);
            let world = World { since, timing, ..world(&state, &observed) };
            let view = View { world, plan: Arc::clone(plan), at: *at };
            Cached { state, observed, published, view: Arc::new(view), statuses: None }
        });
        read(cached.insert(fresh))
    }
}

// === impl Changes ===

impl Changes {
    /// Returns when something may stand otherwise than at the last call.
    pub(super) async fn changed(&mut self) {
        let ended = tokio::select! {
            biased;
            changed = self.state.changed() => changed.is_err(),
            changed = self.view.changed() => changed.is_err(),
            changed = self.observed.changed() => changed.is_err(),
        };
        self.state.borrow_and_update();
        self.view.borrow_and_update();
        self.observed.borrow_and_update();
        if ended {
            // Whoever publishes has ended, so nothing changes any more; the stop ends who waits here.
            std::future::pending::<()>().await;
        }
    }
}
