"""Labs in virtual time: userspace hosts, routers and switches on one simulator, without any privileges."""
