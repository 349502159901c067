//! The L7 controller of lb. A request's way through it reads top to bottom in [`serve::handle`].

#![forbid(unsafe_code)]

pub mod admin;
pub mod audit;
pub mod cli;
pub mod clock;
pub mod config;
pub mod datapath_report;
pub mod edge;
pub mod explain;
pub mod failure;
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
pub mod rates;
pub mod reconcile;
pub mod report;
pub mod run;
pub mod samples;
pub mod serve;
pub mod shutdown;
pub mod signals;
pub mod stepup;
pub mod stepup_metrics;
pub mod store;
pub mod texts;
pub mod trace;
mod webhook;
pub mod xdp_metrics;
