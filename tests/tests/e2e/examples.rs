//! What lies in `manifests/` really runs.

use std::path::PathBuf;

use anyhow::{Result, ensure};
use tug_tests::load::get;
use tug_tests::tug::{Tug, free_port, service};

fn manifest(name: &str) -> String {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../manifests").join(name).join("compose.yaml");
    path.canonicalize().unwrap().to_string_lossy().into_owned()
}

/// Runs `tug` with `variables` in its environment and expects success.
async fn tug_with(tug: &Tug, variables: &[(&str, String)], arguments: &[&str]) -> Result<String> {
    let mut command = tug.command(arguments);
    command.envs(variables.iter().map(|(key, value)| (key, value)));
    let output = tokio::task::spawn_blocking(move || command.output()).await??;
    let text =
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    ensure!(output.status.success(), "tug {arguments:?}: {}\n{text}\n{}", output.status, tug.logs());
    Ok(text)
}

#[tokio::test(flavor = "multi_thread")]
async fn hello_is_built_balanced_and_scaled() -> Result<()> {
    let tug = Tug::start().await?;
    let name = tug.project("hello");
    let port = free_port();
    let file = manifest("hello");
    let variables = [("HELLO_PORT", port.to_string())];
    let apply = ["apply", "--yes", "--project", name.as_str(), "--file", &file];
    tug_with(&tug, &variables, &apply).await?;
    let mut seen = std::collections::BTreeSet::new();
    for _ in 0..12 {
        seen.insert(get(port, "/api/hello").await?);
    }
    assert_eq!(seen.len(), 3, "three replicas answer in turn: {seen:?}");

    tug.ok(&["scale", &format!("{name}/web=5")]).await?;
    let status = tug.until_settled(&name).await?;
    assert_eq!(service(&status, "web").ready, 5);

    let again = tug_with(&tug, &variables, &apply).await?;
    let status = tug.until_settled(&name).await?;
    assert_eq!(service(&status, "web").ready, 3, "the file says three: {again}");
    tug.ok(&["rm", "--yes", name.as_str()]).await?;
    assert!(get(port, "/").await.is_err(), "the port is closed");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_shop_starts_in_order_and_keeps_its_orders() -> Result<()> {
    let tug = Tug::start().await?;
    let name = tug.project("shop");
    let port = free_port();
    let file = manifest("shop");
    let variables = [("SHOP_PORT", port.to_string())];
    let apply = ["apply", "--yes", "--project", name.as_str(), "--file", &file];
    tug_with(&tug, &variables, &apply).await?;
    assert_eq!(get(port, "/").await?, "Welcome to the shop.");
    let status = tug.until_settled(&name).await?;
    let made = |service_name: &str| {
        service(&status, service_name).tasks.iter().map(|task| task.created_at).min().unwrap()
    };
    assert!(
        made("cache") < made("api") && made("queue") < made("api") && made("api") < made("web"),
        "{status:#?}"
    );

    for _ in 0..2 {
        let answer = crate::post(port, "/api/order/tea").await?;
        ensure!(answer.contains(" 201 "), "{answer}");
    }
    assert_eq!(get(port, "/api/orders").await?, r#"{"orders":2}"#);

    tug.ok(&["rm", "--yes", name.as_str()]).await?;
    tug_with(&tug, &variables, &apply).await?;
    assert_eq!(get(port, "/api/orders").await?, r#"{"orders":2}"#, "the volume outlives its project");
    Ok(())
}
