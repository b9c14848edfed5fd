//! The plugin's binary, a real agent, the real kernel and a real Open vSwitch, each test on a node of its own.
//!
//! What runtimes, users and nodes do to a plugin, and which tests do it:
//!
//! - Ended at any instruction, and called again: `again::a_plugin_that_is_killed_at_any_moment`, `crash`.
//! - DEL before ADD, during it, twice after it; without namespace, bridge, Open vSwitch, agent, result or valid
//!   configuration: `edges::del_succeeds_whatever_is_missing`, `again::a_del_that_overtakes_its_add`,
//!   `cnitool::del_by_the_reference_runtime_succeeds_without_what_is_missing`,
//!   `edges::a_note_stands_in_for_an_agent_that_is_away`.
//! - DEL after a reboot, or while leases cannot be reached: `again::after_a_reboot`,
//!   `again::while_the_leases_cannot_be_reached`.
//! - An interface that exists, names that no interface can have: `edges::an_interface_that_exists_is_refused_and_stays`,
//!   `edges::wrong_calls_are_refused_by_name`.
//! - The node's own namespace, a path that leads to another namespace by now:
//!   `edges::the_nodes_own_namespace_is_joined_only_where_that_is_meant`,
//!   `edges::a_path_that_leads_elsewhere_by_now_is_recognised`.
//! - Several interfaces of a container, a network twice: `edges::a_pod_has_an_address_for_each_interface`.
//! - Unknown `args`, variables and arguments of capabilities:
//!   `edges::what_is_not_known_to_us_is_ignored_where_the_specification_says_so`.
//! - A previous result with a tap, or with addresses that tell no interface: `chained::what_came_before_us_stays_as_it_is`.
//! - CHECK at once, and after plugins behind us changed routes: `verbs`, `cnitool`,
//!   `chained::routes_that_later_plugins_changed`.
//! - GC with an empty list, with none, during DEL, of a network that is shared: `verbs`,
//!   `again::gc_while_dels_are_in_flight`, `cnitool::a_network_without_gc_is_left_alone`.
//! - Replaced while it runs: `again::the_plugin_is_replaced_while_it_runs`.
//! - A full pool: `edges::a_full_pool_fails_add_and_not_status`.
//! - Fifty containers at once, and in disorder: `load`.
//! - Larger than the wire: `mtu`. Changed behind our back: `healing`.
//! - In lists, before and behind the reference plugins: `chained`, `annotated`. As docs/attach-pods.md has it: `page`.
//!   Its results: `result`.
#![allow(clippy::unwrap_used, missing_docs)]

mod again;
mod agent;
mod annotated;
mod chained;
mod cnitool;
mod crash;
mod edges;
mod healing;
mod host;
mod load;
mod mtu;
mod ovs;
mod page;
mod plugin;
mod reference;
mod result;
mod verbs;
mod vms;
