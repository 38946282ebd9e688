//! Who has which published port.

use tug_model::spec::Project;
use tug_model::spec::service::PortMode;

use super::draw::{draw, port, project_name, service_name};
use crate::plan::World;
use crate::plan::ports::{AUTOMATIC, conflicts, resolve};

/// The project `shop` of a drawing, as if it was handed in anew.
fn handed_in(drawing: &str) -> Project {
    draw(drawing).projects[&project_name("shop")].spec.clone()
}

/// The numbers that each service gets, by `service: number, number`.
#[track_caller]
fn check_resolved(world: &World, drawing: &str, expected: &[&str]) {
    let mut spec = handed_in(drawing);
    resolve(world, &mut spec).unwrap();
    let lines: Vec<String> = spec
        .services
        .iter()
        .map(|(name, service)| {
            let numbers: Vec<String> = service
                .ports
                .iter()
                .map(|p| p.published.map_or_else(|| "-".into(), |p| p.to_string()))
                .collect();
            format!("{name}: {}", numbers.join(", "))
        })
        .collect();
    assert_eq!(lines, expected);
    let again = {
        let mut again = spec.clone();
        resolve(world, &mut again).unwrap();
        again
    };
    assert_eq!(again, spec, "what has numbers keeps them");
}

#[track_caller]
fn check_conflicts(world: &str, drawing: &str, expected: &[&str]) {
    let found = conflicts(&draw(world), &handed_in(drawing));
    let found: Vec<String> = found.iter().map(|it| format!("{}: {}", it.field, it.message)).collect();
    assert_eq!(found, expected);
}

#[test]
fn a_port_without_a_number_gets_the_lowest_free_one() {
    let world = draw("service blog/web port=30000:80 port=30002:81");
    check_resolved(
        &world,
        "service shop/api port=80 port=81\nservice shop/web port=80",
        &["api: 30001, 30003", "web: 30004"],
    );
}

#[test]
fn numbers_of_its_own_are_not_given_twice() {
    check_resolved(
        &World::default(),
        "service shop/api port=80\nservice shop/web port=30000:80",
        &["api: 30001", "web: 30000"],
    );
}

#[test]
fn an_earlier_number_is_kept() {
    let world = draw("service shop/web port=30007:80 port=30003:90\nservice blog/web port=30000:80");
    check_resolved(&world, "service shop/web port=70 port=80 port=90", &["web: 30001, 30007, 30003"]);
}

#[test]
fn an_earlier_number_that_somebody_else_has_now_is_not_taken_from_them() {
    let world = draw("service shop/web port=30007:80\nservice blog/web port=30007:80");
    check_resolved(&world, "service shop/web port=80", &["web: 30000"]);
}

#[test]
fn the_engine_chooses_for_a_port_of_one_container() {
    check_resolved(&World::default(), "service shop/web host=80", &["web: -"]);
}

#[test]
fn no_number_is_left() {
    let mut world = draw("service blog/web x1");
    let stored = world.projects.get_mut(&project_name("blog")).unwrap();
    let spec = &mut std::sync::Arc::make_mut(stored).spec;
    let all = AUTOMATIC.map(|number| port(&format!("{number}:80"), PortMode::Ingress));
    spec.services.get_mut(&service_name("web")).unwrap().ports = all.collect();
    let conflict = resolve(&world, &mut handed_in("service shop/web port=80")).unwrap_err();
    assert_eq!(conflict.field, "services.web.ports[0]");
    assert_eq!(conflict.message, "every port from 30000 to 32767 is taken");
}

#[test]
fn a_port_of_another_project_is_refused_with_its_owner() {
    check_conflicts(
        "service blog/web port=8080:80\nservice shop/web port=9090:80",
        "service shop/web port=9090:80 port=8080:80",
        &["services.web.ports[1]: port 8080 is published by blog/web already"],
    );
}

#[test]
fn a_port_cannot_be_balanced_and_bound_by_the_engine() {
    check_conflicts(
        "service blog/web host=53:53",
        "service shop/web port=53:53",
        &["services.web.ports[0]: port 53 is published by blog/web already"],
    );
    check_conflicts("service blog/web host=53:53", "service shop/web host=53:53", &[]);
}

#[test]
fn two_services_of_one_project_cannot_share_a_port() {
    check_conflicts(
        "",
        "service shop/api port=80:1\nservice shop/web port=80:2 port=81:3",
        &["services.web.ports[0]: port 80 is published by api already"],
    );
}

#[test]
fn different_addresses_and_protocols_do_not_meet() {
    let world = draw("service blog/web port=80:80");
    let mut spec = handed_in("service shop/web port=80:80");
    let ours = &mut spec.services.get_mut(&service_name("web")).unwrap().ports[0];
    ours.protocol = tug_model::spec::service::Protocol::Udp;
    assert_eq!(conflicts(&world, &spec), []);
    let mut local = handed_in("service shop/web port=80:80");
    local.services.get_mut(&service_name("web")).unwrap().ports[0].host_ip = Some([127, 0, 0, 1].into());
    assert_eq!(conflicts(&world, &local).len(), 1, "every address is also this one");
    local.name = project_name("blog");
    assert_eq!(conflicts(&world, &local), [], "a project replaces its own");
}
