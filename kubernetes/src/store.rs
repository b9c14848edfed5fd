//! IPLease and MACLease as objects of the API.
