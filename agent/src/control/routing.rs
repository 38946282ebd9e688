//! Which assignment the node routes by: not the newest one, but the one that the balancer's table is made from.
//!
//! Who reads in a report that an assignment is followed concludes that no new connection goes to a task which that
//! assignment drains. So an assignment counts only when the balancer has said that it routes by a table made from it.

use std::collections::VecDeque;

use tug_model::report::Following;

/// Tables that were published, and how far the balancer is with them.
#[derive(Debug, Default)]
pub(super) struct Routing {
    following: Following,
    /// The numbers of the tables that the balancer does not route by yet, oldest first, each with the newest assignment
    /// that gives this table.
    awaited: VecDeque<(u64, Following)>,
}

// === impl Routing ===

impl Routing {
    /// The table of this number is published, and is what this assignment gives.
    pub(super) fn published(&mut self, number: u64, following: Following) {
        match self.awaited.back_mut() {
            Some((last, of_last)) if *last == number => *of_last = following,
            Some(_) | None => self.awaited.push_back((number, following)),
        }
    }

    /// The balancer routes by the table of this number. Says whether another assignment is followed now.
    pub(super) fn applied(&mut self, number: u64) -> bool {
        let mut changed = false;
        while let Some((awaited, _)) = self.awaited.front()
            && *awaited <= number
        {
            if let Some((_, following)) = self.awaited.pop_front() {
                changed |= following != self.following;
                self.following = following;
            }
        }
        changed
    }

    /// The assignment that the node acts and routes by.
    pub(super) fn following(&self) -> &Following {
        &self.following
    }
}

#[cfg(test)]
mod tests {
    use tug_model::Revision;

    use super::*;

    fn generation(generation: u64) -> Following {
        Following {
            cluster: "c1".to_owned(),
            epoch: 1,
            generation: Revision(generation),
            ..Following::default()
        }
    }

    #[test]
    fn an_assignment_is_followed_when_its_table_is_applied_and_no_sooner() {
        let mut routing = Routing::default();
        routing.published(1, generation(5));
        assert!(!routing.applied(0));
        assert_eq!(*routing.following(), Following::default());
        assert!(routing.applied(1));
        assert_eq!(*routing.following(), generation(5));

        routing.published(1, generation(5));
        assert!(!routing.applied(1), "nothing is new");
        routing.published(1, generation(6));
        assert!(routing.applied(1), "another assignment of the same table");
        assert_eq!(*routing.following(), generation(6));
    }

    #[test]
    fn a_balancer_that_lags_behind_is_followed_as_far_as_it_has_come() {
        let mut routing = Routing::default();
        for (number, following) in [(1, 5), (2, 6), (2, 7), (3, 8)] {
            routing.published(number, generation(following));
        }
        assert!(routing.applied(2));
        assert_eq!(*routing.following(), generation(7));
        assert!(routing.applied(u64::MAX), "nobody routes any more");
        assert_eq!(*routing.following(), generation(8));
        assert!(routing.awaited.is_empty());
    }
}
