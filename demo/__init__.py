"""The walk-through: Nightcap's main job on a real cluster, narrated, every promise checked."""
