//! The keys of ours: `x-probe` and `x-exclusive`, which work, and those whose engine comes later. The latter are checked all the same,
//! and then refused: nothing that a manifest asks for is left out in silence.

use std::net::IpAddr;

use tug_model::lease::FencingNumber;
use tug_model::spec::deploy::Mode;
use tug_model::spec::rule;
use tug_model::spec::service::{Probe, ProbeCheck, RestartOn, Service};

use crate::reader::{Cursor, Fields};
use crate::schema;

/// `x-probe: {tcp: 8080}` or `{http: /healthz, port: 8080}`.
pub(super) fn probe(cursor: &Cursor<'_>) -> Option<Probe> {
    let fields = cursor.fields(&schema::PROBE)?;
    let tcp = fields.number("tcp", rule::PORT);
    let http = fields.get("http").and_then(|cursor| {
        let path = cursor.text()?;
        let verdict = rule::probe_path(&path);
        cursor.kept(path, verdict)
    });
    let port = fields.number("port", rule::PORT);
    let interval = fields.time("interval", &rule::PROBE_PACE);
    let timeout = fields.time("timeout", &rule::PERIOD);
    let retries = fields.number("retries", rule::PROBE_RETRIES);
    let start_period = fields.time("start_period", &rule::WAIT);
    let (check, port) = match (fields.get("tcp"), fields.get("http")) {
        (Some(_), None) => {
            if let Some(cursor) = fields.get("port") {
                cursor.error("`tcp` is the port already");
            }
            (ProbeCheck::Tcp, tcp?)
        }
        (None, Some(_)) => {
            if fields.get("port").is_none() {
                fields.missing("port");
            }
            (ProbeCheck::Http(http?), port?)
        }
        (Some(_), Some(cursor)) => {
            cursor.error("a probe is `tcp` or `http`, not both");
            return None;
        }
        (None, None) => {
            cursor.error("a probe is `tcp: PORT`, or `http: PATH` with `port`");
            return None;
        }
    };
    let usual = Probe::tcp(port);
    Some(Probe {
        check,
        port,
        interval: interval.unwrap_or(usual.interval),
        timeout: timeout.unwrap_or(usual.timeout),
        retries: retries.unwrap_or(usual.retries),
        start_period: start_period.unwrap_or(usual.start_period),
    })
}

/// `x-exclusive`, of the service or under its `deploy`.
pub(super) fn says_exclusive<'a>(fields: &Fields<'a>, deploy: Option<&Fields<'a>>) -> Option<Cursor<'a>> {
    let entries = deploy.map(|deploy| deploy.cursor().entries()).unwrap_or_default();
    let under_deploy = || entries.into_iter().find(|(entry, _)| entry.key == "x-exclusive");
    fields.get("x-exclusive").or_else(|| under_deploy().map(|(_, cursor)| cursor))
}

/// `x-exclusive: true`: never two at once.
pub(super) fn exclusive(fields: &Fields<'_>, deploy: Option<&Fields<'_>>, service: &Service) -> bool {
    let Some(cursor) = says_exclusive(fields, deploy) else { return false };
    let Some(true) = cursor.flag() else { return false };
    cursor.kept((), rule::exclusive(service.deploy.mode));
    let order = deploy.and_then(|deploy| deploy.get("update_config")).filter(Cursor::is_map);
    let order = order.into_iter().flat_map(|update| update.entries()).find(|(entry, _)| entry.key == "order");
    if let Some((_, order)) = order.filter(|(_, order)| order.text().as_deref() == Some("start-first")) {
        order.error("with `x-exclusive` the old replica goes before the new one starts: use stop-first");
    }
    if service.container.environment.contains_key(FencingNumber::VARIABLE) {
        let variable = FencingNumber::VARIABLE;
        cursor.error(format!("the variable `{variable}` is given to an exclusive service at each start"));
    }
    true
}

/// Checks what comes later, and refuses it.
pub(super) fn refuse_later_ones(fields: &Fields<'_>, service: &Service) {
    for (key, check) in [
        ("x-autoscale", autoscale as fn(&Cursor<'_>, &Service)),
        ("x-ingress", ingress),
        ("x-cron", cron),
        ("x-hooks", hooks),
        ("pre_start", compose_hooks),
        ("post_start", compose_hooks),
        ("pre_stop", compose_hooks),
    ] {
        if let Some(cursor) = fields.get(key) {
            check(&cursor, service);
            not_yet(&cursor, key);
        }
    }
    let deploy = fields.get("deploy").filter(Cursor::is_map);
    let entries = deploy.map(|cursor| cursor.entries()).unwrap_or_default();
    if let Some((_, cursor)) = entries.into_iter().find(|(entry, _)| entry.key == "x-autoscale") {
        autoscale(&cursor, service);
        not_yet(&cursor, "x-autoscale");
    }
}

fn not_yet(cursor: &Cursor<'_>, key: &str) {
    let what = match key {
        "x-autoscale" => "not yet: scaling by load",
        "x-ingress" => "not yet: host names and paths",
        "x-cron" => "not yet: schedules",
        _ => "not yet: hooks",
    };
    cursor.refuse_key(key, what);
}

fn autoscale(cursor: &Cursor<'_>, service: &Service) {
    let Some(fields) = cursor.fields(&schema::AUTOSCALE) else { return };
    let least = fields.number("min", 1..=Mode::MOST_REPLICAS).unwrap_or(1);
    let most = fields.number("max", 1..=Mode::MOST_REPLICAS);
    if fields.get("max").is_none() {
        fields.missing("max");
    }
    if most.is_some_and(|most| most < least) {
        cursor.error(format!("`min: {least}` is more than `max: {}`", most.unwrap_or_default()));
    }
    let percent = |key| fields.number(key, 1..=100_u32);
    let goals = [percent("cpu"), percent("memory"), fields.number("requests_per_second", 1..=1_000_000)];
    let names = ["cpu", "memory", "requests_per_second"];
    if names.iter().all(|key| fields.get(key).is_none()) {
        cursor.error("at least one of `cpu`, `memory` and `requests_per_second` says when to scale");
    }
    if goals.first().copied().flatten().is_some() && service.container.limits.cpus.is_none() {
        cursor.error("`cpu` is a share of `deploy.resources.limits.cpus`, which is missing");
    }
    if service.deploy.mode == Mode::Global {
        cursor.error("a global service has one replica on every node and is not scaled");
    }
    for key in ["scale_up", "scale_down"] {
        let Some(step) = fields.get(key).and_then(|cursor| cursor.fields(&schema::SCALE_STEP)) else {
            continue;
        };
        step.duration("cooldown");
        step.number("step", 1..=1000_u32);
    }
}

fn ingress(cursor: &Cursor<'_>, service: &Service) {
    for item in cursor.one_or_more() {
        if item.is_scalar() {
            let Some(text) = item.text() else { continue };
            let (host, port) = text.rsplit_once(':').map_or((text.as_str(), None), |(h, p)| (h, Some(p)));
            check_host(&item, host);
            if port.is_some_and(|port| port.parse::<u16>().is_err()) {
                item.error(format!("\"{text}\" is not HOST:PORT"));
            }
            continue;
        }
        let Some(fields) = item.fields(&schema::INGRESS) else { continue };
        match fields.get("host") {
            Some(cursor) => check_host(&cursor, &cursor.text().unwrap_or_default()),
            None => fields.missing("host"),
        }
        if let Some(cursor) = fields.get("path")
            && cursor.text().is_some_and(|path| !path.starts_with('/'))
        {
            cursor.error("a path begins with /");
        }
        fields.number("port", 1..=u16::MAX);
        let ports = service.ports.len() + service.expose.len();
        if fields.get("port").is_none() && ports != 1 {
            item.error(format!("`port` is missing, and the service has {ports} ports to choose from"));
        }
        fields.flag("strip_path");
        fields.flag("redirect_http");
        fields.flag("sticky");
        fields.duration("timeout");
        let protocols = ["http", "h2c", "tcp"].map(|word| (word, word));
        fields.get("protocol").and_then(|cursor| cursor.choice(&protocols));
        let Some(tls) = fields.get("tls") else { continue };
        if tls.is_map() {
            let Some(tls) = tls.fields(&schema::INGRESS_TLS) else { continue };
            for key in ["cert", "key"] {
                if tls.text(key).is_none() {
                    tls.missing(key);
                }
            }
        } else {
            tls.choice(&["auto", "off"].map(|word| (word, word)));
        }
    }
}

fn check_host(cursor: &Cursor<'_>, host: &str) {
    let bare = host.strip_prefix("*.").unwrap_or(host);
    let label = |label: &str| {
        !label.is_empty()
            && label.len() <= 63
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.chars().all(|c| c.is_ascii_alphanumeric() || c == '-')
    };
    let is_name = bare.split('.').all(label) && bare.parse::<IpAddr>().is_err();
    if !is_name {
        cursor.error(format!("\"{host}\" is not a host name like app.example.com or *.example.com"));
    }
}

fn cron(cursor: &Cursor<'_>, service: &Service) {
    let Some(fields) = cursor.fields(&schema::CRON) else { return };
    match fields.get("schedule") {
        None => fields.missing("schedule"),
        Some(cursor) => {
            let text = cursor.text().unwrap_or_default();
            let words = ["@hourly", "@daily", "@midnight", "@weekly", "@monthly", "@yearly", "@annually"];
            let good = |c: char| c.is_ascii_alphanumeric() || matches!(c, '*' | '/' | ',' | '-' | '?' | '#');
            let fields: Vec<&str> = text.split_whitespace().collect();
            let is_five = fields.len() == 5 && fields.iter().all(|field| field.chars().all(good));
            if !is_five && !words.contains(&text.as_str()) {
                cursor.error(format!("\"{text}\" is not a schedule of five fields, nor one like @daily"));
            }
        }
    }
    fields.text("timezone");
    fields
        .get("concurrency")
        .and_then(|c| c.choice(&["forbid", "allow", "replace"].map(|word| (word, word))));
    fields.get("missed").and_then(|c| c.choice(&["skip", "once"].map(|word| (word, word))));
    fields.duration("timeout");
    if let Some(keep) = fields.get("keep").and_then(|cursor| cursor.fields(&schema::CRON_KEEP)) {
        keep.number("succeeded", 0..=1000_u32);
        keep.number("failed", 0..=1000_u32);
    }
    if !service.ports.is_empty() {
        cursor.error("what runs on a schedule publishes no ports");
    }
    if service.restart.condition == RestartOn::Any
        && service.restart != tug_model::spec::service::Restart::default()
    {
        cursor.error("what runs on a schedule has `restart: no` or `on-failure`");
    }
}

fn hooks(cursor: &Cursor<'_>, _: &Service) {
    let Some(fields) = cursor.fields(&schema::HOOKS) else { return };
    for key in ["pre_deploy", "post_deploy"] {
        let Some(hook) = fields.get(key).and_then(|cursor| cursor.fields(&schema::DEPLOY_HOOK)) else {
            continue;
        };
        if hook.get("command").and_then(|cursor| cursor.words()).is_none() {
            hook.missing("command");
        }
        hook.duration("timeout");
        hook.options("environment");
        hook.text("user");
        hook.get("on_failure")
            .and_then(|c| c.choice(&["rollback", "pause", "continue"].map(|word| (word, word))));
    }
}

fn compose_hooks(cursor: &Cursor<'_>, _: &Service) {
    for item in cursor.items() {
        let Some(hook) = item.fields(&schema::HOOK) else { continue };
        let command = hook.get("command").and_then(|cursor| cursor.words());
        let image = hook.text("image");
        if command.is_none() && image.is_none() {
            hook.missing("command");
        }
        hook.text("user");
        hook.flag("privileged");
        hook.text("working_dir");
        hook.options("environment");
        hook.flag("per_replica");
    }
}
