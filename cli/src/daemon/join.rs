//! `tug join`: this machine becomes a node, against a token, and its agent is started.
//!
//! The token names the authority whose word is taken for who the control plane is; until that is proven, nothing is sent.
//! The key is made here and stays here.

use std::path::{Path, PathBuf};

use tug_agent::identity::{Folder, Membership, Origin};
use tug_agent::ledger::Ledger;
use tug_agent::{Config, Server};
use tug_api::Code;
use tug_api::client::{CallError, Client};
use tug_api::join::{CertificateRequest, JoinRequest, Joined};
use tug_api::tls::{self, Refusal};
use tug_api::token::{TokenKind, TokenText};
use tug_api::transport::{Channel, TlsServer, TransportError};
use tug_model::NodeId;

use super::node::{NodePlan, agent_dir, unusable};
use super::start;
use crate::arguments::{JoinArguments, Url};
use crate::commands::secret;
use crate::context::Context;
use crate::failure::Failure;
use crate::render::escape::printable;

/// A machine on its way into a cluster.
struct Joining {
    url: Url,
    token: TokenText,
    node: Option<NodeId>,
    state_dir: PathBuf,
    folder: Folder,
}

/// Joins, starts the agent unless told otherwise, and waits until the node is ready.
pub(crate) async fn run(context: &mut Context, arguments: &JoinArguments) -> Result<(), Failure> {
    let url = server(&arguments.server)?;
    let state_dir = arguments.state.folder.clone();
    // Everything that is wrong with the options is said before the token is used up.
    let plan = NodePlan::new(state_dir.clone(), &arguments.node, Server::Joined)?;
    let token = token(context, arguments).await?;
    let folder = Folder::of(&agent_dir(&state_dir));
    let joining = Joining { url, token, node: plan.id, state_dir, folder };
    let membership = joining.join(context).await?;
    if arguments.no_start {
        context.screen.note("the agent is not started: run `tug agent`, with the same options");
        return Ok(());
    }
    start::node(context, arguments, &membership).await
}

// === impl Joining ===

impl Joining {
    async fn join(&self, context: &mut Context) -> Result<Membership, Failure> {
        let kept = self.folder.load().map_err(|error| self.unusable(error))?;
        let again = match kept {
            Some(kept) => self.renew(context, kept).await?,
            None => Err(None),
        };
        let known = match again {
            Ok(membership) => return Ok(membership),
            Err(known) => known,
        };
        // The agent of a node that was removed goes on asking with its key: let in again, it is linked again.
        if known.is_none() && self.is_running()? {
            return Err(self.in_use());
        }
        let wanted = self.node.clone().or(known);
        let csr = self.folder.request().map_err(|error| self.unusable(error))?;
        let request =
            JoinRequest { token: self.token.expose(), csr, node: wanted, hostname: Config::local_hostname() };
        let joined = self.client()?.join(&request).await.map_err(refused)?;
        let membership = self.keep(joined, context)?;
        let facts = &membership.facts;
        context.screen.note(&format!(
            "this machine is node {} of cluster {} now",
            facts.node,
            printable(&facts.cluster)
        ));
        Ok(membership)
    }

    /// What a machine does that is a node already. Of the same cluster, it learns the address that was named, and the token
    /// is not used. One that was removed may join again, under the same id if it is free: that is the inner error.
    async fn renew(
        &self,
        context: &mut Context,
        kept: Membership,
    ) -> Result<Result<Membership, Option<NodeId>>, Failure> {
        let node = kept.facts.node.clone();
        let authority = tls::key_of_pem(&kept.identity.authority_pem);
        if authority.is_none_or(|key| key.0 != self.token.authority()) {
            return Err(self.elsewhere(&kept));
        }
        if kept.facts.origin == Origin::Local {
            return Err(Failure::new(format!(
                "this machine is node {node} already: the control plane runs here"
            ))
            .hint("start its node with `tug agent`, or with `tug server --agent`"));
        }
        if let Some(other) = self.node.as_ref().filter(|other| **other != node) {
            return Err(Failure::new(format!(
                "this machine is node {node} of this cluster already, not {other}"
            ))
            .hint(format!(
                "to make it another node: tug node rm {node}, remove {}, join again",
                self.folder.path().display()
            )));
        }
        let csr = self.folder.request().map_err(|error| self.unusable(error))?;
        match self.client()?.renew(&CertificateRequest { csr }).await {
            Ok(joined) => {
                let membership = self.keep(joined, context)?;
                context.screen.note(&format!(
                    "this machine is node {node} of this cluster already; the token was not used"
                ));
                Ok(Ok(membership))
            }
            Err(CallError::Api(error)) if error.code == Code::Forbidden => Ok(Err(Some(node))),
            Err(error) => Err(refused(error)),
        }
    }

    fn keep(&self, joined: Joined, context: &Context) -> Result<Membership, Failure> {
        let origin = Origin::Joined { at: self.url.address() };
        self.folder.keep(joined, origin, context.clock.now()).map_err(|error| self.unusable(error))
    }

    fn client(&self) -> Result<Client, Failure> {
        let config = tls::pinned_client_config(&self.token.authority())
            .map_err(|error| Failure::caused("prepare TLS", &error))?;
        let server = TlsServer { addresses: vec![self.url.address()], name: tls::server_name(), config };
        Ok(Client::new(Channel::tls(server)))
    }

    fn is_running(&self) -> Result<bool, Failure> {
        is_running(&self.state_dir)
    }

    fn unusable(&self, error: tug_agent::identity::Error) -> Failure {
        unusable("the agent", &agent_dir(&self.state_dir), &tug_agent::OpenError::from(error))
    }

    fn in_use(&self) -> Failure {
        let folder = agent_dir(&self.state_dir);
        Failure::new(format!("an agent that is in no cluster runs on {}", folder.display()))
            .hint("end it, or name another folder with --state-dir")
    }

    fn elsewhere(&self, kept: &Membership) -> Failure {
        let facts = &kept.facts;
        let (folder, cluster) = (agent_dir(&self.state_dir), printable(&facts.cluster));
        Failure::new(format!("this machine is node {} of another cluster, {cluster}", facts.node)).hint(format!(
            "to move it: end its agent, remove its containers and {}, then join again; or name another folder with \
             --state-dir",
            folder.display()
        ))
    }
}

/// Why nobody let us in.
fn refused(error: CallError) -> Failure {
    match error {
        CallError::Transport(TransportError::Connect { address, source })
            if tls::refusal(&source) == Some(Refusal::Stranger) =>
        {
            let address = printable(&address);
            Failure::new(format!(
                "the control plane's CA at {address} does not match the token (possible interception)"
            ))
            .hint("was the token made by another cluster, or the address mistyped? Nothing was told to them")
        }
        CallError::Api(error) if error.code == Code::Unauthenticated => {
            Failure { hint: error.hint, ..Failure::new(error.message) }
        }
        other @ (CallError::Transport(_)
        | CallError::Api(_)
        | CallError::Request(_)
        | CallError::Encode(_)
        | CallError::Decode(_)) => other.into(),
    }
}

/// Whether an agent has the state in this folder.
pub(super) fn is_running(state_dir: &Path) -> Result<bool, Failure> {
    let folder = agent_dir(state_dir);
    let ledger = Ledger::open(&folder);
    let ledger =
        ledger.map_err(|error| unusable("the agent", &folder, &tug_agent::OpenError::from(error)))?;
    Ok(ledger.is_locked())
}

fn server(text: &str) -> Result<Url, Failure> {
    // What stands in the wrong place may be the token: it is not repeated.
    if text.starts_with("tug_") {
        return Err(Failure::usage("the address comes first, then the token")
            .hint("`tug token create`, on the control plane, prints the whole line"));
    }
    text.parse().map_err(|error: String| Failure::usage(error))
}

async fn token(context: &mut Context, arguments: &JoinArguments) -> Result<TokenText, Failure> {
    let file = arguments.token_file.as_deref().filter(|path| path.as_os_str() != "-");
    match arguments.token.as_deref().filter(|token| *token != "-") {
        Some(token) => parsed(token),
        None => parsed(&secret::read(context, file).await?),
    }
}

fn parsed(text: &str) -> Result<TokenText, Failure> {
    let token: TokenText = text.parse().map_err(|error: tug_api::token::BadToken| {
        Failure::usage(error.to_string()).hint("`tug token create`, on the control plane, makes a new one")
    })?;
    match token.kind() {
        TokenKind::Join => Ok(token),
        TokenKind::Access => Err(Failure::usage("this token is for using the API, not for joining")
            .hint("make one for joining on the control plane: tug token create")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_that_is_none_is_not_repeated() {
        let random: Vec<u8> = (0..36).collect();
        let random: [u8; 36] = random.try_into().unwrap();
        let text = |kind| TokenText::new(kind, &"ab".repeat(32), random).unwrap().expose();
        let join = text(TokenKind::Join);
        assert_eq!(parsed(&format!("  {join}\n")).unwrap().id(), "00010203");
        let mut typo = join.clone();
        typo.replace_range(20..21, if &join[20..21] == "x" { "y" } else { "x" });
        for wrong in [typo.as_str(), &join[..60], &text(TokenKind::Access), "x"] {
            let failure = parsed(wrong).unwrap_err();
            let said = format!("{failure:?}");
            assert_eq!(failure.code, crate::failure::USAGE);
            assert!(wrong.len() < 9 || !said.contains(&wrong[9..30]), "{said}");
        }
        let failure = server(&join).unwrap_err();
        assert!(
            failure.message.contains("address comes first") && !format!("{failure:?}").contains(&join[9..])
        );
        assert!(server("http://a").is_err() && server("https://a").is_ok());
    }
}
