//! Clients of the API: connections, shared informers, work queues, events, leader election.
