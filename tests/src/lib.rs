//! What the tests and the demo share: packets and program runs, network namespaces, an origin behind the edge, clients
//! and floods in front of it.

#![forbid(unsafe_code)]

pub mod assertion;
pub mod authenticator;
pub mod authority;
pub mod browser;
pub mod client;
pub mod crowd;
pub mod customer;
pub mod driver;
pub mod dsr;
pub mod edge;
pub mod federated;
pub mod flood;
pub mod forwarding;
pub mod forwarding_link;
pub mod grpc_echo;
pub mod grpc_health;
pub mod idp;
pub mod issued;
pub mod lan;
pub mod level;
pub mod lines;
pub mod load;
pub mod mail_sink;
pub mod name_server;
pub mod netns;
pub mod openssl;
pub mod origin;
pub mod packet;
pub mod pebble;
pub mod program;
pub mod prover;
pub mod puzzle;
pub mod running;
pub mod scraped;
pub mod service_manager;
pub mod signing_key;
pub mod site;
pub mod ssh_key;
pub mod stage;
pub mod steady;
pub mod veth;
pub mod visitor;
pub mod wall_clock;
pub mod web_service;
pub mod websocket;
pub mod websocket_peer;
