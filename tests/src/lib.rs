//! What the tests and the demo share: packets and program runs, network namespaces, an origin behind the edge, clients
//! and floods in front of it.

#![forbid(unsafe_code)]

pub mod assertion;
pub mod authenticator;
pub mod authority;
pub mod browser;
pub mod client;
pub mod driver;
pub mod dsr;
pub mod edge;
pub mod federated;
pub mod flood;
pub mod forwarding;
pub mod forwarding_link;
pub mod idp;
pub mod lan;
pub mod level;
pub mod lines;
pub mod mail_sink;
pub mod netns;
pub mod origin;
pub mod packet;
pub mod program;
pub mod prover;
pub mod puzzle;
pub mod running;
pub mod scraped;
pub mod shop;
pub mod signing_key;
pub mod site;
pub mod ssh_key;
pub mod stage;
pub mod steady;
pub mod veth;
pub mod visitor;
pub mod web_service;
pub mod websocket;
