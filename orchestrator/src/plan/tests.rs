//! The planner's tests.
