//! Real clusters of real processes under real faults.

mod backends;
mod catch_up;
mod damage;
mod disk;
mod ledger;
mod power_cut;
mod support;
