//! Pure protocol machines: time, positions and randomness come in as arguments, decisions go out as values.
//! Nothing here knows a socket, a clock, a file or a thread.

pub mod congestion;
pub mod connections;
pub mod deadline_queue;
pub mod destinations;
pub mod dispatcher;
pub mod feedback_delay;
pub mod flow_control;
pub mod gossip;
pub mod loss_detector;
pub mod pending_setups;
pub mod ports;
pub mod quiet_timer;
pub mod receiver_liveness;
pub mod recovery_time;
pub mod report_rate;
pub mod retransmit;
pub mod rtt;
pub mod session_ids;
pub mod source_proof;
pub mod stall_clock;
pub mod untethered;
pub mod window_reminder;
