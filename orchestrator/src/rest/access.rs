//! Who may do what, asked of every route as everybody.

mod joining;

use axum::body::Body;
use futures_util::StreamExt;
use futures_util::future::join_all;
use http::{Request, StatusCode};
use serde_json::{Value, json};
use tug_api::tls::{Caller, Peer};
use tug_api::token::{TokenKind, TokenText};
use tug_api::{Code, join::TokenMade};
use tug_model::NodeId;
use tug_model::node::KeyId;

use super::authorise::Need;
use super::bench::{Answer, Bench, request, shop};
use tug_model::token::AccessRole;

/// Somebody who asks from outside.
#[derive(Debug, Clone)]
struct Somebody {
    name: String,
    peer: Peer,
    token: Option<String>,
    kind: Kind,
}

/// What somebody is.
#[derive(Debug, Clone, Copy)]
enum Kind {
    /// Nobody who is known.
    Stranger,
    /// Of the cluster once, but not any more.
    Removed,
    /// A node's agent.
    Node,
    /// The holder of a token.
    User {
        role: AccessRole,
        /// Whether `shop` is one of its projects.
        owns: bool,
    },
}

/// What becomes of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    LetIn,
    Unknown,
    MayNot,
    NotThere,
}

impl Kind {
    fn verdict(self, need: Need, in_project: bool) -> Verdict {
        match (need, self) {
            (Need::Nothing, _) | (Need::Known, Self::Node | Self::User { .. }) | (Need::Node, Self::Node) => {
                Verdict::LetIn
            }
            (_, Self::Stranger) => Verdict::Unknown,
            (_, Self::Removed) | (Need::Role(_), Self::Node) | (Need::Node, Self::User { .. }) => {
                Verdict::MayNot
            }
            (Need::Role(_), Self::User { owns: false, .. }) if in_project => Verdict::NotThere,
            (Need::Role(wanted), Self::User { role, .. }) if role < wanted => Verdict::MayNot,
            (Need::Role(_), Self::User { .. }) => Verdict::LetIn,
        }
    }
}

impl Somebody {
    fn user(name: &str, made: TokenMade, role: AccessRole, owns: bool) -> Self {
        let kind = Kind::User { role, owns };
        Self { name: name.to_owned(), peer: Peer::Nobody, token: Some(made.token), kind }
    }

    fn stranger() -> Self {
        Self { name: "nobody".to_owned(), peer: Peer::Nobody, token: None, kind: Kind::Stranger }
    }
}

impl Bench {
    async fn ask_as(&self, somebody: &Somebody, mut request: Request<Body>) -> Answer {
        let caller = Caller { peer: somebody.peer.clone(), address: Some(([192, 0, 2, 1], 1).into()) };
        request.extensions_mut().insert(caller);
        if let Some(token) = &somebody.token {
            request.headers_mut().insert("authorization", format!("Bearer {token}").parse().unwrap());
        }
        self.ask(request).await
    }

    async fn token(&self, grant: Value) -> TokenMade {
        let made = self.json("POST", "/v1/tokens", &json!({ "grant": grant })).await;
        serde_json::from_value(made.value()).unwrap()
    }

    async fn everybody(&self) -> Vec<Somebody> {
        let mut all = Vec::new();
        let roles = [
            ("viewer", AccessRole::Viewer),
            ("deployer", AccessRole::Deployer),
            ("admin", AccessRole::Admin),
        ];
        for (name, role) in roles {
            let lists: &[&[&str]] =
                if role == AccessRole::Admin { &[&[]] } else { &[&[], &["shop"], &["other"]] };
            for projects in lists {
                let made = self.token(json!({ "kind": "access", "role": name, "projects": projects })).await;
                let owns = projects.is_empty() || projects.contains(&"shop");
                all.push(Somebody::user(&format!("{name} of {projects:?}"), made, role, owns));
            }
        }
        let (request, key) = csr();
        let joining = self.token(json!({ "kind": "join", "uses": 1 })).await;
        let joined =
            self.json("POST", "/v1/join", &join(&joining.token, &request, Some("attic"))).await.value();
        assert_eq!(joined["node"], json!("attic"));
        let own = KeyId(tug_api::digest::sha256(&rcgen::PublicKeyData::subject_public_key_info(&key)));
        let other = KeyId("00".repeat(32));
        let left = self.token(json!({ "kind": "join", "uses": 1 })).await.token;
        let strangers = [
            ("the server itself", Peer::Server, None, Kind::Stranger),
            ("nonsense", Peer::Nobody, Some("tug_access_x".to_owned()), Kind::Stranger),
            ("a token for joining", Peer::Nobody, Some(left), Kind::Stranger),
            ("a used token for joining", Peer::Nobody, Some(joining.token), Kind::Stranger),
            ("a node", peer("attic", &own), None, Kind::Node),
            ("a node's name with another key", peer("attic", &other), None, Kind::Removed),
            ("a node's key with another name", peer("cellar", &own), None, Kind::Removed),
        ];
        all.extend(strangers.map(|(name, peer, token, kind)| Somebody {
            name: name.to_owned(),
            peer,
            token,
            kind,
        }));
        all.push(Somebody::stranger());
        all
    }
}

fn peer(node: &str, key: &KeyId) -> Peer {
    Peer::Node { node: NodeId::parse(node).unwrap(), key: key.clone() }
}

/// What every route asks of its caller: to be read before it is accepted.
#[test]
fn every_route_says_what_it_needs() {
    let lines = super::routes().into_iter().map(|(method, route, need, _)| {
        let need = match need {
            Need::Nothing => "nobody in particular".to_owned(),
            Need::Known => "anybody known".to_owned(),
            Need::Node => "node".to_owned(),
            Need::Role(role) => role.to_string(),
        };
        format!("{need:<20} {:<6} {route}", method.as_str())
    });
    let lines: Vec<String> = lines.collect();
    insta::assert_snapshot!(lines.join("\n"), @r"
    nobody in particular GET    /healthz
    anybody known        GET    /readyz
    viewer               GET    /metrics
    anybody known        GET    /v1/openapi.json
    anybody known        GET    /v1/whoami
    anybody known        GET    /v1/info
    viewer               GET    /v1/projects
    viewer               GET    /v1/projects/{project}
    deployer             PUT    /v1/projects/{project}
    deployer             DELETE /v1/projects/{project}
    viewer               GET    /v1/projects/{project}/status
    viewer               POST   /v1/projects/{project}/plan
    deployer             POST   /v1/projects/{project}/scale
    deployer             POST   /v1/projects/{project}/restart
    viewer               GET    /v1/projects/{project}/services/{service}/why
    deployer             POST   /v1/projects/{project}/services/{service}/exec
    viewer               GET    /v1/events
    viewer               GET    /v1/watch
    viewer               GET    /v1/logs
    viewer               GET    /v1/nodes
    viewer               GET    /v1/nodes/{node}
    admin                DELETE /v1/nodes/{node}
    admin                PUT    /v1/nodes/{node}/availability
    admin                PUT    /v1/nodes/{node}/labels
    admin                POST   /v1/nodes/{node}/certificate
    admin                DELETE /v1/nodes/{node}/volumes/{volume}
    viewer               GET    /v1/volumes
    viewer               GET    /v1/top
    admin                GET    /v1/tokens
    admin                POST   /v1/tokens
    admin                DELETE /v1/tokens/{token}
    nobody in particular POST   /v1/join
    nobody in particular POST   /v1/renew
    node                 GET    /v1/link
    ");
}

#[tokio::test]
async fn every_route_is_asked_as_everybody() {
    let bench = Bench::new().await;
    bench.apply(&shop()).await.value();
    let everybody = bench.everybody().await;
    let mut asked = 0;
    for (method, route, need, _) in super::routes() {
        let path = route
            .replace("{project}", "shop")
            .replace("{service}", "nothing")
            .replace("{node}", "n9")
            .replace("{volume}", "nothing")
            .replace("{token}", "00000000");
        let in_project = route.contains("{project}");
        for somebody in &everybody {
            // What no route takes: so nothing is changed, and no stream is opened.
            let mut wrong = request(method.as_str(), &format!("{path}?no=such"), &json!({ "no": "such" }));
            wrong.headers_mut().insert("if-revision", http::HeaderValue::from_static("999"));
            let answer = bench.ask_as(somebody, wrong).await;
            assert_ne!(answer.status, StatusCode::METHOD_NOT_ALLOWED, "{method} {route}");
            asked += 1;
            let found = match answer.status.as_u16() {
                401 => Verdict::Unknown,
                403 => Verdict::MayNot,
                404 if in_project && answer.error().error.message == "there is no project `shop`" => {
                    Verdict::NotThere
                }
                _ => Verdict::LetIn,
            };
            let expected = somebody.kind.verdict(need, in_project);
            assert_eq!(found, expected, "{method} {path} as {}: {answer:?}", somebody.name);
        }
    }
    assert!(asked > 200, "{asked}");
    bench.end().await;
}

#[tokio::test]
async fn tokens_are_told_once_and_their_secrets_are_nowhere_else() {
    let bench = Bench::new().await;
    bench.apply(&shop()).await.value();
    let made = bench.token(json!({ "kind": "access", "role": "viewer" })).await;
    let secret = made.token.split('.').nth(2).unwrap().to_owned();
    let viewer = Somebody::user("viewer", made.clone(), AccessRole::Viewer, true);
    let who = bench.ask_as(&viewer, request("GET", "/v1/whoami", &json!({}))).await.value();
    assert_eq!((&who["kind"], &who["role"]), (&json!("token"), &json!("viewer")));
    for path in ["/v1/tokens", "/v1/events", "/metrics"] {
        let shown = bench.get(path).await.text;
        assert!(!shown.contains(&secret), "{path}: {shown}");
    }
    let kept = format!("{:?}", bench.store.snapshot());
    assert!(!kept.contains(&secret) && kept.contains(&made.id), "only a hash is kept");
    bench.json("DELETE", &format!("/v1/tokens/{}", made.id), &json!({})).await.value();
    let answer = bench.ask_as(&viewer, request("GET", "/v1/projects", &json!({}))).await;
    assert_eq!(answer.error().error.code, Code::Unauthenticated, "a removed token is worth nothing at once");
    bench.end().await;
}

#[tokio::test]
async fn what_is_not_ones_own_is_in_no_list() {
    let bench = Bench::new().await;
    bench.apply(&shop()).await.value();
    let made = bench.token(json!({ "kind": "access", "role": "deployer", "projects": ["other"] })).await;
    let other = Somebody::user("deployer", made, AccessRole::Deployer, false);
    for path in ["/v1/projects", "/v1/events", "/v1/top", "/v1/volumes"] {
        let answer = bench.ask_as(&other, request("GET", path, &json!({}))).await;
        assert_eq!(answer.value(), json!([]), "{path}");
    }
    let told = bench.ask_as(&other, request("GET", "/v1/logs", &json!({}))).await;
    assert_eq!((told.status, told.text.as_str()), (StatusCode::OK, ""));
    for path in [
        "/v1/logs?names=shop",
        "/v1/logs?names=shop/web",
        "/v1/logs?names=shop/nothing",
        "/v1/watch?project=shop",
        "/v1/events?project=shop",
        "/v1/events?project=shop&service=web",
        "/v1/projects/shop/services/nothing/why",
    ] {
        let error = bench.ask_as(&other, request("GET", path, &json!({}))).await.error().error;
        let nowhere = path.replace("shop", "nowhere");
        let unknown = bench.ask_as(&other, request("GET", &nowhere, &json!({}))).await.error().error;
        assert_eq!(error.code, Code::NotFound, "{path}");
        assert_eq!(
            error.message,
            unknown.message.replace("nowhere", "shop"),
            "{path}: it is told from nothing"
        );
        assert_eq!(error.hint, unknown.hint, "{path}");
    }
    let mut watch = request("GET", "/v1/watch", &json!({}));
    watch.extensions_mut().insert(Caller { peer: Peer::Nobody, address: None });
    let bearer = format!("Bearer {}", other.token.as_ref().unwrap());
    watch.headers_mut().insert("authorization", bearer.parse().unwrap());
    let mut watched = bench.send(watch).await.into_body().into_data_stream();
    let first = watched.next().await.unwrap().unwrap();
    assert!(first.starts_with(b"{\"type\":\"bookmark\""), "{first:?}");
    let mut spec = shop();
    spec["name"] = json!("other");
    let taken = request("PUT", "/v1/projects/other", &json!({ "spec": spec }));
    let taken = bench.ask_as(&other, taken).await.error().error;
    assert_eq!((taken.code, taken.message.contains("shop")), (Code::Conflict, false), "{taken:?}");
    let unknown = bench.ask_as(&other, request("GET", "/v1/projects/other", &json!({}))).await.error();
    assert_eq!(unknown.error.hint, None, "the names of others are not told: {unknown:?}");
    bench.end().await;
}

#[tokio::test(start_paused = true)]
async fn an_expired_token_is_good_for_nothing_and_in_the_end_is_listed_no_more() {
    let (bench, _disk) = Bench::in_memory().await;
    let day = std::time::Duration::from_secs(24 * 60 * 60);
    let made = bench.token(json!({ "kind": "join", "uses": 1 })).await;
    tokio::time::advance(day / 24).await;
    let late = bench.json("POST", "/v1/join", &join(&made.token, &csr().0, None)).await;
    assert_eq!(late.error().error.code, Code::Unauthenticated);
    let listed = async || bench.get("/v1/tokens").await.value().as_array().unwrap().len();
    assert_eq!(listed().await, 1);
    tokio::time::advance(8 * day).await;
    bench.token(json!({ "kind": "join", "uses": 1 })).await;
    assert_eq!(listed().await, 1, "only the new one");
    bench.end().await;
}

#[tokio::test(start_paused = true)]
async fn every_token_that_is_not_good_is_answered_in_the_same_words() {
    let (bench, _disk) = Bench::in_memory().await;
    let admin = json!({ "kind": "access", "role": "admin" });
    let short = bench.json("POST", "/v1/tokens", &json!({ "grant": admin, "life": 1_000 })).await.value();
    let (good, removed) = (bench.token(admin.clone()).await, bench.token(admin).await);
    bench.json("DELETE", &format!("/v1/tokens/{}", removed.id), &json!({})).await.value();
    let joining = bench.token(json!({ "kind": "join", "uses": 1 })).await;
    let authority = good.token.parse::<TokenText>().unwrap().authority();
    let mut random = [7; 36];
    random[..4].copy_from_slice(&u32::from_str_radix(&good.id, 16).unwrap().to_be_bytes());
    let wrong = TokenText::new(TokenKind::Access, &authority, random).unwrap();
    assert_eq!(wrong.id(), good.id, "it is another secret for a token that is there");
    tokio::time::advance(std::time::Duration::from_secs(1)).await;

    let whoami = async |token: Option<String>| {
        let somebody = Somebody { token, ..Somebody::stranger() };
        bench.ask_as(&somebody, request("GET", "/v1/whoami", &json!({}))).await
    };
    assert_eq!(whoami(Some(good.token)).await.status, StatusCode::OK);
    let nothing = whoami(None).await.error().error;
    assert_eq!(nothing.code, Code::Unauthenticated);
    let short = short["token"].as_str().unwrap().to_owned();
    for token in [short, removed.token, joining.token, wrong.expose(), "x".repeat(10_000)] {
        assert_eq!(whoami(Some(token.clone())).await.error().error, nothing, "{token:.40}");
    }
    bench.end().await;
}

#[tokio::test]
async fn a_stream_ends_with_the_token_that_opened_it() {
    let bench = Bench::new().await;
    bench.apply(&shop()).await.value();
    let life = json!({ "grant": { "kind": "access", "role": "viewer" }, "life": 300 });
    let short = bench.json("POST", "/v1/tokens", &life).await.value();
    let short: TokenMade = serde_json::from_value(short).unwrap();
    let removed = bench.token(json!({ "kind": "access", "role": "viewer" })).await;
    let mut open = Vec::new();
    for made in [&short, &removed] {
        let mut watch = request("GET", "/v1/watch", &json!({}));
        watch.extensions_mut().insert(Caller { peer: Peer::Nobody, address: None });
        watch.headers_mut().insert("authorization", format!("Bearer {}", made.token).parse().unwrap());
        let mut body = bench.send(watch).await.into_body().into_data_stream();
        assert!(body.next().await.unwrap().is_ok());
        open.push(body);
    }
    bench.json("DELETE", &format!("/v1/tokens/{}", removed.id), &json!({})).await.value();
    for mut body in open {
        let ended = async { while body.next().await.is_some() {} };
        tokio::time::timeout(std::time::Duration::from_secs(5), ended).await.expect("the watch goes on");
    }
    bench.end().await;
}

#[tokio::test(start_paused = true)]
async fn who_asks_too_fast_with_a_token_is_told_to_wait_and_others_are_answered() {
    let (bench, _disk) = Bench::in_memory().await;
    let viewer = json!({ "kind": "access", "role": "viewer" });
    let fast = Somebody::user("fast", bench.token(viewer.clone()).await, AccessRole::Viewer, true);
    let other = Somebody::user("other", bench.token(viewer).await, AccessRole::Viewer, true);
    let whoami = async |who| bench.ask_as(who, request("GET", "/v1/whoami", &json!({}))).await;
    for _ in 0..50 {
        whoami(&fast).await.value();
        let refused = bench.ask_as(&fast, request("GET", "/v1/tokens", &json!({}))).await;
        assert_eq!(refused.error().error.code, Code::Forbidden, "what it may not is counted, too");
    }
    let refused = whoami(&fast).await;
    assert_eq!(
        (refused.status, &refused.headers["retry-after"]),
        (StatusCode::TOO_MANY_REQUESTS, &"1".parse().unwrap())
    );
    let said = refused.error().error;
    assert_eq!(
        (said.code, said.retry_after, said.hint.is_some()),
        (Code::TooMany, Some(1), true),
        "{said:?}"
    );
    whoami(&other).await.value();
    for _ in 0..200 {
        bench.get("/v1/info").await.value();
    }
    assert_eq!(whoami(&fast).await.status, StatusCode::TOO_MANY_REQUESTS, "being refused does not help");
    tokio::time::advance(std::time::Duration::from_secs(1)).await;
    whoami(&fast).await.value();
    bench.end().await;
}

fn csr() -> (String, rcgen::KeyPair) {
    let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
    (csr_of(&key), key)
}

fn csr_of(key: &rcgen::KeyPair) -> String {
    rcgen::CertificateParams::new(Vec::new()).unwrap().serialize_request(key).unwrap().pem().unwrap()
}

fn join(token: &str, csr: &str, node: Option<&str>) -> Value {
    json!({ "token": token, "csr": csr, "node": node, "hostname": "Attic.example" })
}
