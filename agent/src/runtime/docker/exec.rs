//! Commands inside running containers.

use std::pin::Pin;

use bollard::container::LogOutput;
use bollard::exec::{ResizeExecOptions, StartExecOptions, StartExecResults};
use bollard::models::ExecConfig;
use futures_util::stream::{BoxStream, StreamExt, TryStreamExt};
use tokio::io::AsyncWrite;

use super::call::Call;
use super::{
    ContainerId, Docker, ExecId, ExecRequest, ExecSession, Operation, RuntimeError, TerminalSize, deadline,
    raw,
};
use crate::runtime::{Cause, Output, Stream};

type OutputFeed = BoxStream<'static, Result<Output, RuntimeError>>;
type Input = Pin<Box<dyn AsyncWrite + Send>>;

// === impl Docker ===

impl Docker {
    pub(super) async fn open_exec(
        &self,
        id: &ContainerId,
        request: &ExecRequest,
    ) -> Result<ExecSession, RuntimeError> {
        let call = self.call(Operation::Exec, id);
        let config = config(request);
        let exec = call
            .within(deadline::READ, |client| async move { client.create_exec(id.as_str(), config).await })
            .await?;
        let exec = ExecId::new(&exec.id);
        let (output, input) = if request.tty {
            self.start_with_terminal(&call, &exec).await?
        } else {
            start_with_pipes(&call, &exec).await?
        };
        if let Some(size) = request.size.filter(|_| request.tty)
            && let Err(error) = self.resize_exec(&exec, size).await
        {
            // A command may be over before its terminal has a size.
            tracing::debug!(container = %id, %error, "a terminal keeps its size");
        }
        Ok(ExecSession { id: exec, output, input })
    }

    async fn start_with_terminal(
        &self,
        call: &Call<'_>,
        exec: &ExecId,
    ) -> Result<(OutputFeed, Input), RuntimeError> {
        let start = |_| raw::start_exec(&self.socket, exec.as_str());
        let (output, input) = call.within(deadline::START, start).await?;
        let output = output.map_ok(|bytes| Output { stream: Stream::Stdout, bytes });
        Ok((output.map_err(call.failure()).boxed(), Box::pin(input)))
    }

    pub(super) async fn resize_exec(&self, exec: &ExecId, size: TerminalSize) -> Result<(), RuntimeError> {
        let call = self.call(Operation::Exec, exec.as_str());
        let options = ResizeExecOptions { height: size.rows, width: size.columns };
        call.within(deadline::READ, |client| async move { client.resize_exec(exec.as_str(), options).await })
            .await
    }

    pub(super) async fn exit_of_exec(&self, exec: &ExecId) -> Result<Option<i64>, RuntimeError> {
        let call = self.call(Operation::Exec, exec.as_str());
        let state = call
            .within(deadline::READ, |client| async move { client.inspect_exec(exec.as_str()).await })
            .await?;
        Ok(if state.running.unwrap_or(false) { None } else { state.exit_code })
    }
}

async fn start_with_pipes(call: &Call<'_>, exec: &ExecId) -> Result<(OutputFeed, Input), RuntimeError> {
    let options = StartExecOptions { detach: false, tty: false, output_capacity: None };
    let start =
        |client: bollard::Docker| async move { client.start_exec(exec.as_str(), Some(options)).await };
    match call.within(deadline::START, start).await? {
        StartExecResults::Attached { output, input } => {
            let output = output.map_err(call.failure());
            Ok((output.try_filter_map(|piece| std::future::ready(Ok(written(piece)))).boxed(), input))
        }
        StartExecResults::Detached => {
            Err(call.error(Cause::Failed("the engine did not attach to the command".to_owned())))
        }
    }
}

fn config(request: &ExecRequest) -> ExecConfig {
    ExecConfig {
        attach_stdin: Some(request.stdin),
        attach_stdout: Some(true),
        attach_stderr: Some(true),
        tty: Some(request.tty),
        env: Some(request.environment.clone()),
        cmd: Some(request.command.clone()),
        user: request.user.clone(),
        working_dir: request.working_dir.clone(),
        ..ExecConfig::default()
    }
}

fn written(piece: LogOutput) -> Option<Output> {
    match piece {
        LogOutput::StdErr { message } => Some(Output { stream: Stream::Stderr, bytes: message }),
        LogOutput::StdOut { message } | LogOutput::Console { message } => {
            Some(Output { stream: Stream::Stdout, bytes: message })
        }
        LogOutput::StdIn { .. } => None,
    }
}
