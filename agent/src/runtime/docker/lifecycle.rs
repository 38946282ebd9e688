//! Starting, stopping and removing containers. Each of these is done when things are as asked, however they came so.

use std::time::Duration;

use bollard::errors::Error as EngineError;
use bollard::query_parameters::{
    InspectContainerOptions, KillContainerOptionsBuilder, RemoveContainerOptionsBuilder,
    StartContainerOptions, StopContainerOptionsBuilder,
};
use tug_model::quantity::Millis;

use super::{ContainerId, Docker, Operation, RuntimeError, deadline};
use crate::runtime::Cause;

/// Between two looks at a container that somebody else is removing.
const REMOVAL_POLL: Duration = Duration::from_millis(200);

// === impl Docker ===

impl Docker {
    pub(super) async fn start_container(&self, id: &ContainerId) -> Result<(), RuntimeError> {
        let call = self.call(Operation::Start, id);
        let started = call
            .within(deadline::START, |client| async move {
                client.start_container(id.as_str(), None::<StartContainerOptions>).await
            })
            .await;
        self.forget(id);
        started
    }

    pub(super) async fn stop_container(&self, id: &ContainerId, grace: Millis) -> Result<(), RuntimeError> {
        let call = self.call(Operation::Stop, id);
        let seconds = i32::try_from(grace.0.div_ceil(1000)).unwrap_or(i32::MAX);
        let options = StopContainerOptionsBuilder::new().t(seconds).build();
        let stopped = call
            .within(deadline::stop(grace), |client| async move {
                client.stop_container(id.as_str(), Some(options)).await
            })
            .await;
        unless(stopped, RuntimeError::is_not_found)
    }

    pub(super) async fn kill_container(
        &self,
        id: &ContainerId,
        signal: Option<&str>,
    ) -> Result<(), RuntimeError> {
        let call = self.call(Operation::Kill, id);
        let options = KillContainerOptionsBuilder::new().signal(signal.unwrap_or("SIGKILL")).build();
        let killed = call
            .within(deadline::START, |client| async move {
                client.kill_container(id.as_str(), Some(options)).await
            })
            .await;
        // The Engine answers 409 when the container does not run.
        unless(killed, |error| error.is_not_found() || matches!(error.cause, Cause::Conflict(_)))
    }

    pub(super) async fn unpause_container(&self, id: &ContainerId) -> Result<(), RuntimeError> {
        let call = self.call(Operation::Unpause, id);
        let unpaused = call
            .within(deadline::START, |client| async move { client.unpause_container(id.as_str()).await })
            .await;
        unless(
            unpaused,
            |error| matches!(&error.cause, Cause::Failed(text) | Cause::Conflict(text) if text.contains("is not paused")),
        )
    }

    pub(super) async fn remove_container(&self, id: &ContainerId) -> Result<(), RuntimeError> {
        let call = self.call(Operation::Remove, id);
        let removed = call
            .within(deadline::REMOVE, |client| async move {
                let options = RemoveContainerOptionsBuilder::new().force(true).v(true).build();
                match client.remove_container(id.as_str(), Some(options)).await {
                    // Somebody is at it already, perhaps an earlier call of ours that was given up.
                    Err(EngineError::DockerResponseServerError { status_code: 409, message })
                        if message.contains("already in progress") =>
                    {
                        gone(&client, id).await
                    }
                    answer => answer,
                }
            })
            .await;
        unless(removed, RuntimeError::is_not_found)
    }
}

/// Waits until the Engine does not know the container any more, which it says with an error.
async fn gone(client: &bollard::Docker, id: &ContainerId) -> Result<(), EngineError> {
    loop {
        client.inspect_container(id.as_str(), None::<InspectContainerOptions>).await?;
        tokio::time::sleep(REMOVAL_POLL).await;
    }
}

/// The result, where an error that says "it is so already" is a success.
fn unless(
    result: Result<(), RuntimeError>,
    is_so_already: impl FnOnce(&RuntimeError) -> bool,
) -> Result<(), RuntimeError> {
    match result {
        Err(error) if is_so_already(&error) => Ok(()),
        result => result,
    }
}
