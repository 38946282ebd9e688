//! Joining: what a token is good for, what is refused, and how often it may be tried.

use super::*;

#[tokio::test]
async fn a_token_lets_one_machine_in_and_its_key_gets_certificates_from_then_on() {
    let bench = Bench::new().await;
    let made = bench.token(json!({ "kind": "join", "uses": 1 })).await;
    let (request, key) = csr();
    let joined = bench.json("POST", "/v1/join", &join(&made.token, &request, None)).await.value();
    assert_eq!(joined["node"], json!("attic"));
    assert_eq!(joined["servers"], json!(["tug.example:7443"]));
    let again = bench.json("POST", "/v1/join", &join(&made.token, &csr().0, None)).await;
    assert_eq!(again.error().error.code, Code::Unauthenticated, "it was good for one");
    let race = bench.token(json!({ "kind": "join", "uses": 1, "node": "attic-9" })).await.token;
    let tries = (0..8).map(|_| async { bench.json("POST", "/v1/join", &join(&race, &csr().0, None)).await });
    let won = join_all(tries).await.into_iter().filter(|answer| answer.status == StatusCode::OK);
    assert_eq!(won.count(), 1, "it is good for one of many at once");
    let renewed = bench.json("POST", "/v1/renew", &json!({ "csr": csr_of(&key) })).await.value();
    assert_eq!(renewed["node"], json!("attic"));
    let unknown = bench.json("POST", "/v1/renew", &json!({ "csr": csr().0 })).await;
    assert_eq!(unknown.error().error.code, Code::Forbidden);

    let two = bench.token(json!({ "kind": "join", "uses": 2 })).await;
    let taken = bench.json("POST", "/v1/join", &join(&two.token, &csr().0, Some("attic"))).await;
    assert_eq!(taken.error().error.code, Code::Conflict);
    let second = bench.json("POST", "/v1/join", &join(&two.token, &csr().0, None)).await.value();
    assert_eq!(second["node"], json!("attic-2"));
    bench.end().await;
}

#[tokio::test]
async fn what_is_no_way_to_join_changes_nothing() {
    let bench = Bench::new().await;
    let access = bench.token(json!({ "kind": "access", "role": "admin" })).await.token;
    let named = bench.token(json!({ "kind": "join", "uses": 1, "node": "cellar" })).await.token;
    let before = bench.store.snapshot().nodes.len();
    let (request, _) = csr();
    let forged = TokenText::new(TokenKind::Join, &"ab".repeat(32), [7; 36]);
    let cases = [
        (join(&access, &request, None), Code::Unauthenticated),
        (join(&forged.unwrap().expose(), &request, None), Code::Unauthenticated),
        (join("", &request, None), Code::Unauthenticated),
        (join(&"x".repeat(50_000), &request, None), Code::Unauthenticated),
        (join(&"x".repeat(1 << 20), &request, None), Code::TooLarge),
        (join(&named, &request, Some("attic")), Code::Forbidden),
        (join(&named, "no request", None), Code::Invalid),
        (join(&named, &request, Some("Not A Name")), Code::Invalid),
        (json!({ "token": named, "csr": request, "hostname": "" }), Code::Invalid),
        (json!({ "token": named, "csr": request, "hostname": "x", "as": "admin" }), Code::Invalid),
    ];
    for (body, code) in cases {
        let answer = bench.json("POST", "/v1/join", &body).await;
        assert_eq!(answer.error().error.code, code, "{answer:?}");
        assert!(!answer.text.contains(&named), "{answer:?}");
    }
    assert_eq!(bench.store.snapshot().nodes.len(), before);
    bench.json("POST", "/v1/join", &join(&named, &request, None)).await.value();
    bench.end().await;
}

#[tokio::test]
async fn tries_to_join_are_counted_by_address() {
    let bench = Bench::new().await;
    let somebody = Somebody::stranger();
    let mut codes = Vec::new();
    for _ in 0..12 {
        let answer = bench.ask_as(&somebody, request("POST", "/v1/join", &join("x", "y", None))).await;
        codes.push(answer.error().error.code);
    }
    let elsewhere = Caller { peer: Peer::Nobody, address: Some(([192, 0, 2, 2], 1).into()) };
    let mut other = request("POST", "/v1/join", &join("x", "y", None));
    other.extensions_mut().insert(elsewhere);
    assert_eq!(bench.ask(other).await.error().error.code, Code::Unauthenticated, "others are not affected");
    let refused = bench.ask_as(&somebody, request("POST", "/v1/join", &join("x", "y", None))).await;
    assert_eq!(refused.headers["retry-after"], "6");
    // A node that is known gets its certificate however many strangers try.
    let made = bench.token(json!({ "kind": "join", "uses": 1 })).await;
    let (first, key) = csr();
    bench.json("POST", "/v1/join", &join(&made.token, &first, None)).await.value();
    for _ in 0..20 {
        let renewal = request("POST", "/v1/renew", &json!({ "csr": csr_of(&key) }));
        bench.ask_as(&somebody, renewal).await.value();
    }
    let stranger = request("POST", "/v1/renew", &json!({ "csr": csr().0 }));
    assert_eq!(bench.ask_as(&somebody, stranger).await.error().error.code, Code::TooMany);
    assert_eq!(codes[..10], [Code::Unauthenticated; 10]);
    assert_eq!(codes[10..], [Code::TooMany; 2]);
    bench.end().await;
}
