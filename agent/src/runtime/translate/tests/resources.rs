//! Networks and volumes: what the manifest says, and what the Engine is told.

use super::*;

fn full_network() -> Network {
    Network {
        engine_name: "shop_front".to_owned(),
        external: false,
        driver: some("macvlan"),
        driver_opts: pairs([("parent", "eth0")]),
        internal: true,
        attachable: true,
        enable_ipv6: true,
        labels: pairs([("a", "b"), ("tug.project", "evil")]),
        ipam: Some(Ipam {
            driver: None,
            pools: vec![IpamPool {
                subnet: some("10.1.0.0/16"),
                ip_range: some("10.1.5.0/24"),
                gateway: some("10.1.5.254"),
                aux_addresses: pairs([("host1", "10.1.5.5")]),
            }],
            options: pairs([("k", "v")]),
        }),
    }
}

#[test]
fn a_network_is_made_as_the_manifest_says() {
    let (node, project) = (NodeId::parse("n1").unwrap(), ProjectName::parse("shop").unwrap());
    let owner = Owner { node: &node, project: &project, key: "front" };
    let asked = serde_json::to_value(super::network(owner, &full_network())).unwrap();
    assert_eq!(asked["Name"], json!("shop_front"));
    assert_eq!(asked["Driver"], json!("macvlan"));
    assert_eq!(asked["Options"], json!({ "parent": "eth0" }));
    assert_eq!(
        [&asked["Internal"], &asked["Attachable"], &asked["EnableIPv6"]],
        [&json!(true), &json!(true), &json!(true)]
    );
    let ipam = json!({
        "Driver": "default",
        "Config": [{
            "Subnet": "10.1.0.0/16", "IPRange": "10.1.5.0/24", "Gateway": "10.1.5.254",
            "AuxiliaryAddresses": { "host1": "10.1.5.5" },
        }],
        "Options": { "k": "v" },
    });
    assert_eq!(asked["IPAM"], ipam);
    let labels = &asked["Labels"];
    assert_eq!(labels["a"], json!("b"));
    assert_eq!(labels["tug.node"], json!("n1"));
    assert_eq!(labels["tug.project"], json!("shop"));
    assert_eq!(labels["tug.network"], json!("front"));
    let plain = Network { engine_name: "x".to_owned(), ..Network::default() };
    let plain = super::network(owner, &plain);
    assert_eq!(plain.driver.as_deref(), Some("bridge"));
}

#[test]
fn a_volume_is_made_as_the_manifest_says() {
    let (node, project) = (NodeId::parse("n1").unwrap(), ProjectName::parse("shop").unwrap());
    let owner = Owner { node: &node, project: &project, key: "data" };
    let volume = Volume {
        engine_name: "shop_data".to_owned(),
        driver_opts: pairs([("type", "nfs")]),
        labels: pairs([("a", "b")]),
        ..Volume::default()
    };
    let asked = serde_json::to_value(super::volume(owner, &volume)).unwrap();
    assert_eq!(asked["Name"], json!("shop_data"));
    assert_eq!(asked["Driver"], json!("local"));
    assert_eq!(asked["DriverOpts"], json!({ "type": "nfs" }));
    assert_eq!(asked["Labels"]["tug.volume"], json!("data"));
    assert_eq!(asked["Labels"]["a"], json!("b"));
}

#[test]
fn a_change_of_settings_is_noticed_by_its_key() {
    let label = |network: &Network| serde_json::to_string(&network_settings(network)).unwrap();
    let made = full_network();
    let check = |change: &dyn Fn(&mut Network), expected: &[&str]| {
        let mut wanted = full_network();
        change(&mut wanted);
        let changed = differences(Some(&label(&made)), &network_settings(&wanted));
        assert_eq!(changed, expected);
    };
    check(&|_| {}, &[]);
    check(&|network| network.labels = BTreeMap::new(), &[]);
    check(&|network| network.external = true, &[]);
    check(&|network| network.internal = false, &["internal"]);
    check(
        &|network| {
            network.driver = None;
            network.ipam = None;
        },
        &["driver", "ipam"],
    );
    // The default written out is the default.
    let bridge = Network { driver: some("bridge"), ..Network::default() };
    let bare = Network::default();
    assert_eq!(differences(Some(&label(&bare)), &network_settings(&bridge)), Vec::<String>::new());
    // What an older version wrote lacks keys that have come since.
    assert_eq!(differences(Some(r#"{"driver":"bridge"}"#), &network_settings(&bare)), Vec::<String>::new());
    for label in [None, Some("nonsense")] {
        assert_eq!(differences(label, &network_settings(&bare)).len(), 1);
    }
}
