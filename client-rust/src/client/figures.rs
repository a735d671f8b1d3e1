//! What a client asks about the sidecar as a whole: its figures, what runs in it, its end.

use std::future::poll_fn;
use std::sync::atomic::Ordering;

use nexus_protocol::ClientMessage;
use nexus_protocol::message;

use super::Client;
use crate::call::Call;
use crate::error::Error;
use crate::executions::ExecutionInfo;
use crate::link::{Answer, UNEXPECTED, answered};
use crate::told::{SidecarLimits, Stats};

impl Client {
    /// The sidecar's figures.
    pub fn stats(&self) -> Call<Stats> {
        self.request(ClientMessage::Stats, |answer| answered!(answer, Answer::Stats(stats) => Stats::of(&stats)))
    }

    /// The executions that the sidecar holds, also those of other clients: at most 1,000 of them, and how many there are.
    pub fn executions(&self) -> Call<(Vec<ExecutionInfo>, u64)> {
        self.request(
            ClientMessage::Executions,
            |answer| answered!(answer, Answer::Executions(executions, total) => (executions, total)),
        )
    }

    /// Ends an execution of any client by its id in that list. False: there was none.
    pub fn kill_execution(&self, execution: u64) -> Call<bool> {
        self.request(
            ClientMessage::Kill(message::Kill { execution }),
            |answer| answered!(answer, Answer::Done(killed) => killed),
        )
    }

    /// The sidecar's metrics in the text format of Prometheus, as `/metrics` of its HTTP endpoint has them.
    pub fn metrics(&self) -> Call<String> {
        self.request(ClientMessage::Metrics, |answer| answered!(answer, Answer::Metrics(text) => text))
    }

    /// Whether the sidecar answers.
    pub fn ping(&self) -> Call<()> {
        self.request(ClientMessage::Ping, |answer| answered!(answer, Answer::Pong => ()))
    }

    /// Lets what runs finish, then ends the connection, and the sidecar if it was spawned. Done when that has happened, also
    /// where the sidecar ended by itself or was just starting; later calls fail. It begins now, polled or not.
    pub fn shutdown(&self) -> Call<()> {
        let starting = self.0.sessions.retire();
        let link = self.0.sessions.last();
        link.draining.store(true, Ordering::Relaxed);
        let closed = link.closed();
        let sent = link.send(ClientMessage::Shutdown);
        Call::new(async move {
            if let Some(starting) = starting {
                // Its failure is what was asked for.
                let _ = poll_fn(|context| starting.poll(context)).await;
            }
            let answer = match sent {
                Ok(pending) => pending.await,
                Err(error) => Err(error),
            };
            match answer {
                Ok(Answer::Done(_)) => {}
                Ok(_) => return Err(UNEXPECTED),
                Err(_) if link.is_closed() => {}
                Err(error) => return Err(error),
            }
            closed.await;
            Ok(())
        })
    }

    /// Version of the sidecar, the present one or the last.
    pub fn build(&self) -> String {
        self.0.sessions.last().greeting.build.clone()
    }

    /// Digest of the sidecar's guest module.
    pub fn engine(&self) -> String {
        self.0.sessions.last().greeting.engine.clone()
    }

    /// Process id of the sidecar, as it says.
    pub fn pid(&self) -> u32 {
        self.0.sessions.last().greeting.pid
    }

    /// Process id of the child, if the sidecar was spawned.
    pub fn child_pid(&self) -> Option<u32> {
        self.0.sessions.child_pid()
    }

    /// Whether errors carry stacks and snippets.
    pub fn is_debug(&self) -> bool {
        self.0.sessions.last().greeting.debug
    }

    /// The limits in force.
    pub fn limits(&self) -> SidecarLimits {
        SidecarLimits::of(&self.0.sessions.last().greeting.limits)
    }

    fn request<T: Send + 'static>(
        &self,
        message: ClientMessage<'static>,
        read: impl FnOnce(Answer) -> Result<T, Error> + Send + 'static,
    ) -> Call<T> {
        self.begin(move |link| {
            let pending = link.send(message)?;
            Ok(async move { read(pending.await?) })
        })
    }
}
