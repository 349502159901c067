//! The L7 controller of lb. A request's way through it reads top to bottom in [`serve::handle`].

#![forbid(unsafe_code)]

pub mod acme;
pub mod admin;
pub mod audit;
pub mod cli;
pub mod clock;
pub mod config;
pub mod datapath_report;
mod descriptors;
pub mod discovery;
pub mod edge;
pub mod explain;
pub mod failure;
mod folders;
pub mod handover;
pub mod health;
pub mod identity;
pub mod instance;
pub mod joint;
pub mod lists;
pub mod lists_metrics;
pub mod logging;
mod mail;
pub mod metrics;
pub mod pcap;
pub mod pool;
pub mod privileges;
pub mod proxy_protocol;
pub mod rates;
pub mod reconcile;
pub mod report;
pub mod run;
pub mod samples;
mod seldom;
pub mod serve;
pub mod shutdown;
pub mod signals;
pub mod stepup;
pub mod stepup_metrics;
pub mod store;
pub mod tail;
pub mod texts;
pub mod trace;
pub mod traces;
mod webhook;
pub mod xdp_metrics;
