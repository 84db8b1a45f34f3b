"""Text in ovs-ofctl syntax: what ovs-ofctl makes of it is what we make of it."""

from __future__ import annotations

import subprocess

import pytest

from ovsctl.openflow import (
    FieldError,
    Flow,
    InvalidValueError,
    Match,
    Output,
    OutputTrunc,
    ReservedPort,
    TextError,
    ToController,
    format_flow,
    parse_flow,
    parse_flows,
)

# Each as someone would type it; ovs-ofctl's own reading of it is the expectation.
TYPED = (
    """
ct_state=-inv+trk,ct_nw_src=0.0.45.40/29,ip actions=output(port=608,max_len=163)
ip,tun_src=0.0.0.0/0.0.8.0,tun_ipv6_dst=fe80::a0/ffff::32a5 actions=drop
dl_vlan=3 actions=set_field:4101->vlan_vid
dl_vlan=3,dl_vlan_pcp=5 actions=strip_vlan,5
ip actions=mod_nw_tos:8,mod_nw_ecn:1,dec_ttl(1,2),dec_ttl
actions=enqueue:1:2,enqueue(3,4)
actions=set_queue:3,pop_queue,5,in_port,controller:5,CONTROLLER,LOCAL,output:local,normal,FLOOD,all
tcp,tp_src=80,tcp_flags=+syn-ack actions=mod_tp_src:5,mod_tp_dst:6
tcp6,tcp_dst=0x50/0xfff0,tcp_flags=0x2 actions=fin_timeout(idle_timeout=5,hard_timeout=6)
tcp,tcp_flags=syn|ack actions=fin_timeout(idle_timeout=5)
ct_state=trk|est,ip,ct_zone=0x10,ct_mark=0x1/0x3,ct_label=0x1234 actions=drop
vlan_tci=0 actions=push_vlan:0x8100
arp actions=push_mpls:0x8847,pop_mpls:0x0806,resubmit(,5)
mpls actions=pop_mpls:0x0800
vlan_tci=0x1000/0x1000 actions=pop_vlan
vlan_tci=0x7123 actions=drop
udp,tcp_src=5,udp_dst=53 actions=drop
sctp6,sctp_src=5,tp_dst=53 actions=drop
arp,nw_src=1.2.3.4,nw_dst=1.2.3.0/24,nw_proto=1,arp_sha=01:02:03:04:05:06 actions=drop
rarp actions=move:NXM_OF_ETH_SRC[]->NXM_NX_ARP_THA[]
dl_type=0x88cc,dl_src=01:00:00:00:00:00/01:00:00:00:00:00 actions=drop
reg0[0..3]=5,reg0[8]=1,xreg4=0x1/0xff,metadata=5/7,pkt_mark=8 actions=drop
in_port=LOCAL,tun_id=0x5 actions=set_tunnel:7,set_tunnel64:0x123456789abcd
in_port=65534 actions=output:65534,output:NXM_NX_REG0[0..15],output:reg3
actions=resubmit(,5),resubmit(3),resubmit:3,resubmit(LOCAL,7),resubmit:LOCAL
actions=learn(table=5,NXM_OF_ETH_DST[]=NXM_OF_ETH_SRC[],eth_type=0x800,reg3[0..3]=5,in_port=99,\
load:5->reg0[1..8],load:reg1[0..7]->reg0[1..8],output:in_port[])
actions=learn(NXM_OF_VLAN_TCI[0..11],priority=5,hard_timeout=9,idle_timeout=8,fin_idle_timeout=3,\
fin_hard_timeout=4,cookie=0x7,send_flow_rem,delete_learned,limit=9,result_dst=reg0[3])
actions=learn(table=5,eth_type=0x800,ip_src=1.2.3.4,nw_proto=6,tcp_src=3,NXM_OF_IP_DST[0..7]=9)
cookie=010,table=3,priority=7,idle_timeout=1,hard_timeout=2,importance=3,send_flow_rem actions=drop
no_packet_counts,no_byte_counts,check_overlap,reset_counts,actions=drop
actions=set_field:0x5/0xf->reg3,load:7->reg3[1..4],load:0xff->NXM_NX_XXREG0[64..71]
actions=set_field:0a:00:00:00:00:01->eth_dst,mod_dl_src:0a:00:00:00:00:02
ip actions=set_field:10.0.0.0/8->ip_dst,mod_nw_src:1.2.3.4,set_field:3->nw_ttl
ipv6,ipv6_src=fe80::/10,ipv6_label=0x5/0xf actions=set_field:::1->ipv6_dst
icmp6,icmp_type=135,icmp_code=0,nd_target=fe80::1,nd_sll=0a:00:00:00:00:01 actions=drop
icmp6,icmpv6_type=136,nd_tll=0a:00:00:00:00:01,nd_reserved=5,nd_options_type=2 actions=drop
icmp,icmp_type=8,icmp_code=0,nw_frag=no,nw_tos=32,nw_ecn=1,nw_ttl=64 actions=drop
ip,ip_frag=yes,ip_dscp=8 actions=drop
ip,nw_frag=later actions=drop
ip,ct_state=+trk+est,ct_nw_proto=6,ct_tp_src=5,ct_tp_dst=0x10/0xf0,ct_nw_dst=1.1.1.1 actions=resubmit(,1,ct)
tcp actions=ct(nat,zone=reg0[0..15],commit,exec(load:1->ct_mark,set_field:5->ct_label),alg=ftp,table=5)
ip actions=ct(commit,force,nat(src=10.0.0.1-10.0.0.9:100-200,random,persistent),zone=7)
ipv6 actions=ct(commit,nat(dst=[fe80::1]-[fe80::9]:5,hash)),ct_clear
ipv6 actions=ct(commit,nat(dst=fe80::1-fe80::9)),ct(commit,nat(src)),ct
actions=controller(userdata=01.02.ff,max_len=5,reason=no_match,id=7,pause,meter_id=3),controller(id=5)
table=3 actions=meter:1,output:1,clear_actions,write_metadata:5/0xf,goto_table:5
actions=write_actions(group:1,output:5),write_metadata:7
actions=check_pkt_larger(100)->reg0[3],push:reg0[1..9],pop:reg1[0..8],exit
actions=sample(probability=1023,collector_set_id=7,obs_domain_id=8,obs_point_id=9,sampling_port=3,egress),sample(probability=1)
actions=note:01.02.ff,note:,clone(output:1,clone(set_field:1->reg0,2)),group:7
actions=conjunction(5,1/2),conjunction(0x6,2/3)
conj_id=5 actions=output:1
""".replace("\\\n", "")
    .strip()
    .splitlines()
)


@pytest.mark.parametrize("typed", TYPED)
def test_reads_what_ovs_ofctl_reads(typed: str) -> None:
    done = subprocess.run(
        ["ovs-ofctl", "-O", "OpenFlow15", "parse-flow", typed], capture_output=True, text=True, check=True
    )
    (line,) = [line for line in done.stdout.splitlines() if "ADD" in line]
    theirs = line.partition("ADD ")[2].replace("cookie:", "cookie=").replace("table:", "table=")
    for name in ("idle", "hard", "importance"):
        theirs = theirs.replace(f"{name}:", f"{name}=" if name == "importance" else f"{name}_timeout=")
    ours = parse_flow(typed)
    assert ours == parse_flow(theirs)
    assert parse_flow(format_flow(ours)) == ours


def test_a_dump_is_read() -> None:
    dump = """
OFPST_FLOW reply (OF1.5) (xid=0x2):
 cookie=0x5, duration=3.1s, table=7, n_packets=3, n_bytes=4, idle_age=5, priority=9,in_port=1 actions=output:2

# what follows is ours
table=255 actions=CONTROLLER:128,output:CONTROLLER:7
"""
    first, second = parse_flows(dump.splitlines())
    assert first == Flow(Match(in_port=1), (Output(2),), 7, 9, 5)
    assert second.actions == (ToController(128), ToController(7))
    assert parse_flow(format_flow(Flow(actions=(OutputTrunc(ReservedPort.LOCAL, 14),)))).actions == (
        OutputTrunc(ReservedPort.LOCAL, 14),
    )


def test_what_ovs_ofctl_drops_is_an_error() -> None:
    with pytest.raises(FieldError, match="eth_type=0x0800"):
        parse_flow("nw_src=10.0.0.1 actions=drop")
    with pytest.raises(TextError, match="not a flag"):
        parse_flow("tcp4 actions=drop")
    with pytest.raises(InvalidValueError):
        parse_flow("in_port=nowhere actions=drop")
