from overlay.simulator.timeline import Timeline


def test_what_is_due_happens_in_time_and_then_in_the_order_of_asking():
    timeline, happened = Timeline(), []
    began = timeline.now
    for name, delay_s in (("late", 2.0), ("first", 1.0), ("second", 1.0), ("never", 9.0)):
        timeline.later(delay_s, lambda name: happened.append((name, timeline.now)), name)
    timeline.run_for(3.0)
    assert happened == [("first", began + 1.0), ("second", began + 1.0), ("late", began + 2.0)]
    assert timeline.now == began + 3.0


def test_what_happens_may_ask_for_more_within_the_same_time():
    timeline, times = Timeline(), []

    def tick():
        times.append(timeline.now)
        timeline.later(1.0, tick)

    tick()
    timeline.run_for(2.5)
    assert len(times) == 3
